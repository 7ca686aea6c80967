package store

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// maxRedirections is how often calls follow servers that name another one. Two are usual while a slot moves.
const maxRedirections = 4

// tryAgainPause is how long a call waits whose keys are on two servers, because their slot is being moved.
const tryAgainPause = 5 * time.Millisecond

// importerIdle is how long the store of an importing node is kept without a call, if it costs anything.
const importerIdle = 10 * time.Second

// Why a server did not run a call that another server would. Redis checks that before it runs anything, so such a call may be
// made again, also one that must count once. The initializers name ErrUnavailable themselves (R45).
var (
	errMoved    = fmt.Errorf("%w: MOVED: the nodes of the cluster do not agree on who serves this name's slot", ErrUnavailable)
	errAsk      = fmt.Errorf("%w: ASK: the nodes of the cluster do not agree on who serves this name's slot", ErrUnavailable)
	errNowhere  = fmt.Errorf("%w: ASK: the slot is being moved to a node that has no address", ErrUnavailable)
	errReadOnly = fmt.Errorf("%w: READONLY: this redis is a replica", ErrUnavailable)
	errTryAgain = fmt.Errorf("%w: TRYAGAIN: the slot is being moved, and the call's keys are on two nodes", ErrUnavailable)
)

var askingCommand = command("ASKING")

// errorIn returns the error of an error reply, and notes the server that it names.
func errorIn(c *conn, text string) error {
	err := replyError(text)
	if !c.follows {
		return err
	}
	code, rest := splitReply(text)
	if code == "MOVED" {
		if address := redirectionIn(rest, c.address); address != "" {
			c.movedTo = address
		}
		return errMoved
	}
	if code == "ASK" {
		address := redirectionIn(rest, c.address)
		if address == "" {
			return errNowhere
		}
		c.askAt = address
		return errAsk
	}
	if code == "READONLY" {
		return errReadOnly
	}
	if code == "TRYAGAIN" {
		return errTryAgain
	}
	return err
}

// redirectionIn returns the address in the text of MOVED or ASK: the code, the slot and the address, in which a host that is
// missing is the one by which the server that answered was dialled: its certificate may name no other. It returns "" if there
// is no valid one; a node without a hostname may call itself "?".
func redirectionIn(text, dialled string) string {
	fields := strings.Fields(text)
	if len(fields) != 3 {
		return ""
	}
	colon := strings.LastIndex(fields[2], ":")
	if colon < 0 {
		return ""
	}
	host := strings.Trim(fields[2][:colon], "[]")
	port, err := strconv.Atoi(fields[2][colon+1:])
	if err != nil || port < 1 || port > 65535 || host == "?" {
		return ""
	}
	if host == "" {
		host, _, _ = net.SplitHostPort(dialled)
	}
	if host == "" {
		return ""
	}
	return net.JoinHostPort(host, strconv.Itoa(port))
}

// releaseOrFollow releases a connection on which the calls were answered. Those that its server refused because another one is
// to be asked are made there.
func releaseOrFollow(s *Store, c *conn, calls []*Call, deadline time.Time, redirections int) error {
	if !s.follows || redirections >= maxRedirections {
		release(s, c)
		return nil
	}
	importerAddress := c.askAt // c belongs to another request once it is released
	var moved, asked, split []*Call
	for _, call := range calls {
		if call.Err == errMoved || call.Err == errReadOnly {
			moved = append(moved, call)
		} else if call.Err == errAsk {
			asked = append(asked, call)
		} else if call.Err == errTryAgain {
			split = append(split, call)
		}
	}
	if len(moved) == 0 {
		release(s, c)
	} else {
		replaceServer(s, c)
	}
	if len(asked) > 0 {
		if err := askImporter(s, importerAddress, asked, deadline); err != nil {
			return err
		}
		for _, call := range asked {
			if call.Err == errMoved {
				s.topology.doubt() // the slot stays, or has gone elsewhere
				moved = append(moved, call)
			} else if call.Err == errTryAgain {
				split = append(split, call)
			}
		}
	}
	if len(split) > 0 && redirections == 0 {
		time.Sleep(tryAgainPause)
		moved = append(moved, split...)
	}
	if len(moved) == 0 {
		return nil
	}
	return followCalls(s, moved, deadline, redirections+1)
}

// replaceServer closes the connections to a server that another one replaces. It may have more data than that one has.
func replaceServer(s *Store, c *conn) {
	closeConn(c)
	closeIdle(s)
	s.noteLost()
	s.topology.redirect(c.movedTo)
	if importer := takeImporter(s); importer != nil {
		closeLater(importer) // the slot has been moved
	}
}

func followCalls(s *Store, calls []*Call, deadline time.Time, redirections int) error {
	for _, call := range calls {
		markPending(call)
	}
	return tryConns(s, calls, deadline, redirections)
}

// askImporter makes calls about keys that have been moved already, at the node to which their slot is being moved.
func askImporter(s *Store, address string, calls []*Call, deadline time.Time) error {
	return followCalls(importerAt(s, address), calls, deadline, maxRedirections)
}

// importerAt returns the store of a node that is importing this store's slot.
func importerAt(s *Store, address string) *Store {
	login := s.login()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.importer != nil && s.importer.settings.Address == address && s.importer.isClosed() == s.closed {
		s.importer.askedAt.Store(time.Now().UnixNano())
		return s.importer
	}
	if s.importer != nil {
		closeLater(s.importer)
	}
	settings := s.settings
	settings.Address = address
	settings.Cluster = false
	settings.Password = login.Password
	settings.TLS = login.TLS
	settings.LoginVersion = login.Version
	s.importer = New(settings, func(reason error) {})
	s.importer.asking = true
	s.importer.follows = true
	s.importer.askedAt.Store(time.Now().UnixNano())
	if s.closed {
		s.importer.Close() // as in this store, each call has its own connection
	}
	return s.importer
}

// endForgotten closes the store of a node that was importing a slot, and reports whether it did: no call has been redirected to
// it for long. If the move was given up, nobody says so.
func (s *Store) endForgotten() bool {
	if !s.asking || time.Since(time.Unix(0, s.askedAt.Load())) < importerIdle {
		return false
	}
	s.Close()
	return true
}

// closeImporter closes the connections to a node that was importing the slot.
func closeImporter(s *Store) {
	if importer := takeImporter(s); importer != nil {
		importer.Close()
	}
}

func takeImporter(s *Store) *Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	importer := s.importer
	s.importer = nil
	return importer
}

func closeLater(s *Store) {
	go func() {
		defer func() { recover() }()
		s.Close()
	}()
}
