package store

import (
	"errors"
	"strconv"
	"strings"
)

var (
	errPending  = errors.New("store: not answered")
	errBadReply = errors.New("store: the script did not answer with integers")
)

// Call is one run of a script. Run fills in Reply or Answer, Conn and Err; until it has returned the call belongs to it.
type Call struct {
	Script *Script
	Keys   []string
	Args   []string

	// Words, if not nil, replace Keys and Args: the first Number of them are keys. Each is made by Word, so that a caller
	// who sends the same words again need not encode them each time. The answer to such a call is left in Answer, with its
	// line end.
	Words  []string
	Number int

	// Once forbids to repeat the call on another connection: it must not count twice. If Again is set, the call may be
	// repeated once Again has prepared it. If not, a connection that was idle is checked before the call is sent.
	Once  bool
	Again func(*Call)

	// Then, if not nil, is called by Finish with the answered call.
	Then func(*Call)

	Reply  []int64 // what the script answered
	Answer string  // the same as text
	Conn   int64   // the number of the connection that answered; later connections have larger ones
	Err    error   // nil, an error that wraps ErrUnavailable, or the script's own error
}

// Finish passes an answered call to its Then. It is a function because a method call costs three times as much in the
// interpreter; so are others here.
func Finish(c *Call) {
	if c.Then != nil {
		c.Then(c)
	}
}

// markPending marks the call as not answered.
func markPending(c *Call) {
	c.Reply = nil
	c.Err = errPending
}

// setAnswer takes the text that the script answered.
func setAnswer(c *Call, text string) {
	c.Err = nil
	c.Answer = text
	if c.Words != nil {
		return
	}
	fields := strings.Fields(text)
	integers := make([]int64, len(fields))
	for i, field := range fields {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			c.Err = errBadReply
			return
		}
		integers[i] = n
	}
	c.Reply = integers
}
