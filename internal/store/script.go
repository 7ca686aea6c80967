package store

import (
	"crypto/sha1"
	"encoding/hex"
)

// Script is a Lua script and the name that Redis knows it by. It does not change and may be shared.
type Script struct {
	source string
	sha    string
}

// NewScript returns the script with the given Lua source.
func NewScript(source string) *Script {
	sum := sha1.Sum([]byte(source))
	return &Script{source: source, sha: hex.EncodeToString(sum[:])}
}

// Call is one run of a script. Store.Run fills in Reply and Err; until it has returned the call belongs to it.
type Call struct {
	Script *Script
	Keys   []string
	Args   []string

	// Once forbids a second try on another connection: for calls that must not count twice.
	Once bool

	// Then, where it is not nil, is what becomes of the answer: Finish calls it.
	Then func(*Call)

	// Reply holds the integers that the script answered with; every script of ours answers so.
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

// words returns the arguments of the command EVALSHA, or of EVAL where source is set.
func (c *Call) words(source bool) []interface{} {
	words := make([]interface{}, 0, 2+len(c.Keys)+len(c.Args))
	if source {
		words = append(words, c.Script.source)
	} else {
		words = append(words, c.Script.sha)
	}
	words = append(words, len(c.Keys))
	for _, key := range c.Keys {
		words = append(words, key)
	}
	for _, arg := range c.Args {
		words = append(words, arg)
	}
	return words
}
