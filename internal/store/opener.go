package store

import (
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"time"
)

// opener makes connections to servers that are only asked where another one is.
type opener struct {
	store       *Store
	isSentinels bool // they are sentinels, whose login is another
}

// sentinelOpener returns the opener for sentinels.
func sentinelOpener(s *Store) opener { return opener{store: s, isSentinels: true} }

// nodeOpener returns the opener for the nodes of a cluster.
func nodeOpener(s *Store) opener { return opener{store: s} }

// ask makes a connection, sends a command over it, and returns both the connection and the answer. If any of that fails, and the
// login has changed meanwhile, it tries once more: with TLS 1.3 or without a password, a server refuses the command, not the login.
func (o opener) ask(address string, deadline time.Time, words []string) (*conn, interface{}, error) {
	login := o.store.login()
	c, answer, err := o.askWith(address, deadline, login, words)
	if err != nil && rereadLogin(o.store, login, err) {
		c, answer, err = o.askWith(address, deadline, o.store.login(), words)
	}
	return c, answer, o.explain(address, err)
}

// explain says in an error that a sentinel is meant: its refusals would read like those of the master, which has another login.
func (o opener) explain(address string, err error) error {
	if err == nil || !o.isSentinels || isTimeout(err) || isDialError(err) {
		return err
	}
	return fmt.Errorf("sentinel %s: %s", address, reasonOf(err).Error())
}

// isDialError reports whether no connection could be made. The error names the address.
func isDialError(err error) bool { return strings.HasPrefix(err.Error(), "dial ") }

func (o opener) askWith(address string, deadline time.Time, login *Login, words []string) (*conn, interface{}, error) {
	c, err := openWith(o.store, address, deadline, login, o.auth(login))
	if err != nil {
		return nil, nil, err
	}
	return askOver(c, deadline, words)
}

// auth returns the words that authenticate, or none.
func (o opener) auth(login *Login) []string {
	settings := o.store.settings
	if o.isSentinels {
		return authCommand(settings.Sentinel.Username, login.SentinelPassword)
	}
	return authCommand(settings.Username, login.Password)
}

// askOver sends a command over a connection. If that fails, it closes the connection, and returns none.
func askOver(c *conn, deadline time.Time, words []string) (*conn, interface{}, error) {
	c.stream.SetDeadline(deadline)
	answer, err := do(c, words)
	if err != nil {
		closeSafely(c)
		return nil, nil, err
	}
	return c, answer, nil
}

func openWith(s *Store, address string, deadline time.Time, login *Login, auth []string) (*conn, error) {
	c, err := connect(s, address, deadline, login)
	if err != nil {
		return nil, err
	}
	if len(auth) > 0 {
		c.stream.SetDeadline(deadline)
		if err = send(c, command(auth...)); err == nil {
			err = readOK(c, "AUTH")
		}
	}
	if err != nil {
		closeConn(c)
		return nil, err
	}
	return c, nil
}

// connect makes a connection: TCP and TLS.
func connect(s *Store, address string, deadline time.Time, login *Login) (*conn, error) {
	dialer := &net.Dialer{Deadline: deadline}
	stream, err := dialer.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	if login.TLS != nil {
		secure := tls.Client(stream, tlsFor(login.TLS, address))
		stream.SetDeadline(deadline)
		if err := secure.Handshake(); err != nil {
			stream.Close()
			return nil, err
		}
		stream = secure
	}
	c := newConn(stream, s.settings.DialTimeout)
	c.isTLS = login.TLS != nil
	return c, nil
}

// tlsFor returns the settings of TLS for an address, whose host the certificate must name unless the settings name another.
func tlsFor(config *tls.Config, address string) *tls.Config {
	if config.ServerName != "" {
		return config
	}
	own := config.Clone()
	own.ServerName, _, _ = net.SplitHostPort(address)
	return own
}

// authCommand returns the words that authenticate a user, or none.
func authCommand(username, password string) []string {
	if password == "" {
		return nil
	}
	if username == "" {
		return []string{"AUTH", password}
	}
	return []string{"AUTH", username, password}
}
