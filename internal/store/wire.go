package store

import (
	"strings"
	"time"
)

// run makes the calls in one round trip; those whose script Redis does not know are made again with the source. After an
// error the connection cannot be used any more; calls that were answered before keep their answers.
func run(c *conn, calls []*Call, deadline time.Time) error {
	if err := roundTrip(c, calls, false, deadline); err != nil {
		return err
	}
	return runUnknown(c, calls, deadline)
}

// runUnknown makes those calls again, with the source, whose script Redis does not know. All calls are answered.
func runUnknown(c *conn, calls []*Call, deadline time.Time) error {
	var unknown []*Call
	for _, call := range calls {
		if call.Err == errNoScript {
			unknown = append(unknown, call)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	return roundTrip(c, unknown, true, deadline)
}

func roundTrip(c *conn, calls []*Call, withSource bool, deadline time.Time) error {
	encoded := make([]string, len(calls))
	for i, call := range calls {
		markPending(call)
		encoded[i] = encode(call, withSource)
		if c.asking {
			encoded[i] = askingCommand + encoded[i]
		}
	}
	if soon := time.Now().Add(grace); deadline.Before(soon) {
		deadline = soon // it has passed, or will while this is sent; a Redis that is close answers all the same
	}
	if err := c.stream.SetDeadline(deadline); err != nil {
		return err
	}
	if err := send(c, strings.Join(encoded, "")); err != nil {
		return err
	}
	if err := readLoads(c, ""); err != nil {
		return err
	}
	for _, call := range calls {
		if c.asking {
			if err := readOK(c, "ASKING"); err != nil {
				return err
			}
		}
		line, err := readLine(c)
		if err != nil {
			return err
		}
		if err = parseReply(c, call, line); err != nil {
			return err
		}
	}
	return nil
}

// parseReply takes the reply to a call: a string or an error, each of one line, because our scripts answer with nothing
// else. After an error the connection cannot be used any more.
func parseReply(c *conn, call *Call, line string) error {
	if line[0] == '+' {
		setAnswer(call, line[1:])
	} else if line[0] == '-' {
		call.Err = errorIn(c, strings.TrimSpace(line[1:]))
	} else {
		return errBadReply
	}
	call.Conn = c.number
	c.unproven = false
	return nil
}
