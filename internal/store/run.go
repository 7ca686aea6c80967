package store

import (
	"io"
	"strings"
	"time"
)

// Run makes the calls in one round trip. It returns when each has its answer or error, at the latest at the deadline, or a
// few milliseconds after a deadline that passed while this process was not running. The returned error wraps ErrUnavailable
// and is also that of every call without an answer.
//
// Most runs are one call over an idle connection, which the script answers with a string. That path is written out here,
// because in the interpreter each call of a function costs, and so does each local variable, used or not. Everything else is
// done by runAll and the finish functions.
func (s *Store) Run(calls []*Call, deadline time.Time) (err error) {
	var c *conn
	var counted *Stats // nil: calls are not counted
	locked := false
	defer func() {
		if panicked := recover(); panicked != nil {
			if locked {
				s.mu.Unlock()
			}
			err = recoverRun(s, c, calls, panicked)
			s.count(calls, time.Now())
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
	counted = s.stats
	if last := len(s.idle) - 1; last >= 0 {
		c = s.idle[last]
		s.idle = s.idle[:last]
	}
	locked = false
	s.mu.Unlock()
	if c == nil {
		return runAll(s, calls, deadline)
	}

	c.stream.SetDeadline(deadline) // if it fails, so does what follows
	n, err := io.WriteString(c.stream, commandHeads[len(words)]+call.Script.byName+numberWords[call.Number]+strings.Join(words, newline)+newline)
	c.sentAt = time.Now() // not before the write: this process may have been stopped meanwhile
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

	if counted != nil {
		return finishCounted(s, c, counted)
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
