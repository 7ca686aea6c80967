package store

import (
	"io"
	"strings"
	"time"
)

// Run sends the calls in one round trip and returns when each has its Reply or Err, at the deadline at the latest, or a few
// milliseconds behind one that passed while this process was not running. The error it returns, which wraps ErrUnavailable, is
// also that of every call that got no answer.
//
// Most runs are one call on an idle connection, which the script answers with a string. That is written out here: interpreted,
// each call of a function costs, and each value in a function, whether it is used or not. All else goes on in runAll or goOn.
func (s *Store) Run(calls []*Call, deadline time.Time) (err error) {
	var c *conn
	locked := false
	defer func() {
		if trouble := recover(); trouble != nil {
			if locked {
				s.mu.Unlock()
			}
			err = recoverRun(s, c, calls, trouble)
		}
	}()
	if len(calls) != 1 {
		return runAll(s, calls, deadline)
	}
	call := calls[0]
	call.Err = errPending
	words := call.Words
	if words == nil {
		if call.Once {
			return runAll(s, calls, deadline)
		}
		words = wordsOf(call)
	}
	if len(words) > maxWords {
		return runAll(s, calls, deadline)
	}
	s.mu.Lock()
	locked = true
	if last := len(s.idle) - 1; last >= 0 {
		c = s.idle[last]
		s.idle = s.idle[:last]
	}
	locked = false
	s.mu.Unlock()
	if c == nil {
		return runAll(s, calls, deadline)
	}

	c.stream.SetDeadline(deadline) // where it cannot, nor can what follows
	n, err := io.WriteString(c.stream, commandHeads[len(words)]+call.Script.byName+numberWords[call.Number]+strings.Join(words, newline)+newline)
	c.sentAt = time.Now() // not before: this process may have been halted
	if err != nil {
		return finishUnsent(s, c, calls, n, err, deadline)
	}
	c.limit.N = maxReply
	line, err := c.reader.ReadString('\n')
	if err != nil || line[0] != '+' {
		return finishSlow(s, c, calls, line, err, deadline)
	}
	c.unproven = false
	c.usedAt = c.sentAt
	call.Conn = c.number
	call.Err = nil
	call.Answer = line[1:]
	if call.Words == nil {
		setAnswer(call, line[1:])
	}

	s.mu.Lock()
	locked = true
	if len(s.waiters) == 0 && len(s.idle) < s.idleCap && !c.expired {
		s.idle = append(s.idle, c)
		c = nil
	}
	locked = false
	s.mu.Unlock()
	if c != nil {
		release(s, c)
	}
	return nil
}
