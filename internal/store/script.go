package store

import (
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
)

// Script is a Lua script and the name that Redis knows it by. It does not change and may be shared. It answers with
// integers in one string, between them a space: redigo, interpreted, reads a string in a fraction of the time that it
// takes over an array.
type Script struct {
	byName   []string // the first words of the command that runs it, as they go over the wire
	bySource []string
}

// NewScript returns the script with the given Lua source.
func NewScript(source string) *Script {
	sum := sha1.Sum([]byte(source))
	return &Script{
		byName:   appendWord(appendWord(nil, "EVALSHA"), hex.EncodeToString(sum[:])),
		bySource: appendWord(appendWord(nil, "EVAL"), source),
	}
}

// Call is one run of a script. Store.Run fills in Reply and Err; until it has returned the call belongs to it.
type Call struct {
	Script *Script
	Keys   []string
	Args   []string

	// Once forbids a second try on another connection: for calls that must not count twice. Where Again is set, there is
	// one, for which Again makes the call fit.
	Once  bool
	Again func(*Call)

	// Then, where it is not nil, is what becomes of the answer: Finish calls it.
	Then func(*Call)

	// Reply holds the integers that the script answered with.
	Reply []int64
	// Err is nil, an error wrapping ErrUnavailable, or the script's own error.
	Err error
}

// pend marks the call as not answered yet.
func (c *Call) pend() {
	c.Reply = nil
	c.Err = errPending
}

// Finish hands the answered call to whoever waits for it.
func (c *Call) Finish() {
	if c.Then != nil {
		c.Then(c)
	}
}

// appendTo appends the command to the lines that go over the wire.
func (c *Call) appendTo(lines []string, source bool) []string {
	lines = append(lines, "*"+strconv.Itoa(3+len(c.Keys)+len(c.Args)))
	if source {
		lines = append(lines, c.Script.bySource...)
	} else {
		lines = append(lines, c.Script.byName...)
	}
	lines = appendWord(lines, strconv.Itoa(len(c.Keys)))
	for _, key := range c.Keys {
		lines = append(lines, "$"+strconv.Itoa(len(key)), key)
	}
	for _, arg := range c.Args {
		lines = append(lines, "$"+strconv.Itoa(len(arg)), arg)
	}
	return lines
}

func appendWord(lines []string, word string) []string {
	return append(lines, "$"+strconv.Itoa(len(word)), word)
}

// read takes redigo's reply for the call's.
func (c *Call) read(reply interface{}, err error) {
	c.Err = nil
	if err != nil {
		// The text only: an interpreted error value of redigo's own type is not safe to keep or compare.
		c.Err = errors.New(err.Error())
		return
	}
	text, ok := reply.([]byte)
	if !ok {
		c.Err = errBadReply
		return
	}
	words := strings.Fields(string(text))
	numbers := make([]int64, len(words))
	for i, word := range words {
		number, err := strconv.ParseInt(word, 10, 64)
		if err != nil {
			c.Err = errBadReply
			return
		}
		numbers[i] = number
	}
	c.Reply = numbers
}
