package store

import (
	"strings"
	"time"
)

// run sends the calls in one round trip, and once more in full those whose script Redis has not got. An error means that
// the connection is of no more use; calls that have their answer by then keep it.
func run(c *conn, calls []*Call, deadline time.Time) error {
	if err := roundTrip(c, calls, false, deadline); err != nil {
		return err
	}
	return runUnknown(c, calls, deadline)
}

// runUnknown sends once more those calls, of which all are answered, whose script Redis has not got.
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

func roundTrip(c *conn, calls []*Call, source bool, deadline time.Time) error {
	commands := make([]string, len(calls))
	for i, call := range calls {
		markPending(call)
		commands[i] = encode(call, source)
	}
	if soon := time.Now().Add(grace); deadline.Before(soon) {
		deadline = soon // it has passed, or will while this is sent; an answer that is near comes all the same
	}
	if err := c.stream.SetDeadline(deadline); err != nil {
		return err
	}
	if err := send(c, strings.Join(commands, "")); err != nil {
		return err
	}
	if err := readLoads(c, ""); err != nil {
		return err
	}
	for _, call := range calls {
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

// understand takes the reply to a call. Of those there are our scripts make two, a string and an error, and both are one
// line. An error means that the connection is of no more use.
func parseReply(c *conn, call *Call, line string) error {
	if line[0] == '+' {
		setAnswer(call, line[1:])
	} else if line[0] == '-' {
		call.Err = replyError(strings.TrimSpace(line[1:]))
	} else {
		return errBadReply
	}
	call.Conn = c.number
	c.unproven = false
	return nil
}
