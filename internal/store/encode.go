package store

import (
	"strconv"
	"strings"
)

const newline = "\r\n"

// maxWords is more than the keys and arguments of a usual call. Larger calls take the slower path.
const maxWords = 1100

// What is encoded once, when the plugin is loaded.
var (
	wordHeads    = makeHeads("$", 0, 256)        // before words of up to 255 bytes, by length
	commandHeads = makeHeads("*", 3, maxWords+1) // before commands, by the number of words besides the three that each has
	numberWords  = makeNumberWords(len(commandHeads))
)

func makeHeads(kind string, from, n int) []string {
	made := make([]string, n)
	for i := range made {
		made[i] = kind + strconv.Itoa(from+i) + newline
	}
	return made
}

// makeNumberWords returns the words for small numbers, with their line ends.
func makeNumberWords(n int) []string {
	made := make([]string, n)
	for i := range made {
		made[i] = Word(strconv.Itoa(i)) + newline
	}
	return made
}

// Word returns a word of a command in Redis's protocol, without its line end.
func Word(text string) string {
	if len(text) < len(wordHeads) {
		return wordHeads[len(text)] + text
	}
	return "$" + strconv.Itoa(len(text)) + newline + text
}

// wordsOf encodes Keys and Args.
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

// encode returns the call in Redis's protocol, with the script's source or only its name. A call without keys and arguments
// ends in an empty line, which Redis ignores.
func encode(c *Call, withSource bool) string {
	words := c.Words
	if words == nil {
		words = wordsOf(c)
	}
	head := c.Script.byName
	if withSource {
		head = c.Script.bySource
	}
	return "*" + strconv.Itoa(3+len(words)) + newline + head + Word(strconv.Itoa(c.Number)) + newline + strings.Join(words, newline) + newline
}
