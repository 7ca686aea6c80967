package store

import (
	"crypto/sha1"
	"encoding/hex"
	"strconv"
	"strings"
	"sync"
)

// Script is a Lua script and the name that Redis knows it by. It does not change and may be shared. It answers with one
// string, of integers with a space between them, which is read in a fraction of the time that an array takes.
type Script struct {
	byName   string // the first words of the command that runs it, as they go over the wire
	bySource string
}

// NewScript returns the script with the given Lua source.
func NewScript(source string) *Script {
	source = luaBefore + source + luaAfter
	sum := sha1.Sum([]byte(source))
	name := hex.EncodeToString(sum[:])
	loadCommandByName.Store(name, "*3"+newline+Word("SCRIPT")+newline+Word("LOAD")+newline+Word(source)+newline)
	return &Script{
		byName:   Word("EVALSHA") + newline + Word(name) + newline,
		bySource: Word("EVAL") + newline + Word(source) + newline,
	}
}

// toLoad holds the commands that load the scripts there are, by the scripts' names. They are few, and made when the plugin is loaded.
var loadCommandByName sync.Map

// loadable returns the commands that load all scripts.
func loadCommands() []string {
	var commands []string
	loadCommandByName.Range(func(_, command interface{}) bool {
		commands = append(commands, command.(string))
		return true
	})
	return commands
}

// What goes around a script makes a line of the string that it answers with: one step reads that, where a string whose length
// goes before it takes three.
const (
	luaBefore = "local function script()\n"
	luaAfter  = `
end
local answer = script()
if type(answer) == 'string' then
	return {ok = answer}
end
return answer
`
)

// Call is one run of a script. Store.Run fills in Reply and Err; until it has returned the call belongs to it.
type Call struct {
	Script *Script
	Keys   []string
	Args   []string

	// Words, where they are not nil, go in the place of Keys and Args, and Number of them are keys. They are as Word makes
	// them: who has many, and the same ones again, need not have them made here each time. The answer to such a call is left
	// in Answer as it came, with the end of its line.
	Words  []string
	Number int

	// Once forbids a second try on another connection: for calls that must not count twice. Where Again is set, there is
	// one, for which Again makes the call fit. Where it is not, a connection that was idle is looked at before the call is sent.
	Once  bool
	Again func(*Call)

	// Then, where it is not nil, is what becomes of the answer: Finish calls it.
	Then func(*Call)

	// Reply holds the integers that the script answered with.
	Reply  []int64
	Answer string
	// Conn is the number of the connection that answered. A later connection has a larger one.
	Conn int64
	// Err is nil, an error wrapping ErrUnavailable, or the script's own error.
	Err error
}

// pend marks the call as not answered yet.
func markPending(c *Call) {
	c.Reply = nil
	c.Err = errPending
}

// Finish hands an answered call to whoever waits for it. It and others here are functions, not methods: in the interpreter a
// call of a method costs three times that of a function.
func Finish(c *Call) {
	if c.Then != nil {
		c.Then(c)
	}
}

const newline = "\r\n"

// heads are what goes before short words.
var wordHeads = makeHeads("$", 0, 256)

// maxWords is more than a call of ours has.
const maxWords = 1100

// counts are how a command with so many words begins, besides the three that each has.
var commandHeads = makeHeads("*", 3, maxWords+1)

func makeHeads(kind string, from, n int) []string {
	made := make([]string, n)
	for i := range made {
		made[i] = kind + strconv.Itoa(from+i) + newline
	}
	return made
}

// numbers are the words for small numbers, with the ends of their lines.
var numberWords = makeNumberWords(len(commandHeads))

func makeNumberWords(n int) []string {
	made := make([]string, n)
	for i := range made {
		made[i] = Word(strconv.Itoa(i)) + newline
	}
	return made
}

// Word returns a word of a command as it goes over the wire, but for the end of its line.
func Word(text string) string {
	if len(text) < len(wordHeads) {
		return wordHeads[len(text)] + text
	}
	return "$" + strconv.Itoa(len(text)) + newline + text
}

// command returns the call as it goes over the wire. Without keys and arguments it ends in an empty line, which Redis passes
// over.
func encode(c *Call, source bool) string {
	words := c.Words
	if words == nil {
		words = wordsOf(c)
	}
	head := c.Script.byName
	if source {
		head = c.Script.bySource
	}
	return "*" + strconv.Itoa(3+len(words)) + newline + head + Word(strconv.Itoa(c.Number)) + newline + strings.Join(words, newline) + newline
}

// wordsOf makes words of Keys and Args.
func wordsOf(c *Call) []string {
	c.Number = len(c.Keys)
	words := make([]string, 0, len(c.Keys)+len(c.Args))
	for _, text := range c.Keys {
		words = append(words, Word(text))
	}
	for _, text := range c.Args {
		words = append(words, Word(text))
	}
	return words
}

// read takes the text that a script answered with.
func setAnswer(c *Call, text string) {
	c.Err = nil
	c.Answer = text
	if c.Words != nil {
		return
	}
	words := strings.Fields(text)
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
