package store

import (
	"crypto/tls"
	"net"
	"time"
)

// opener makes a connection to a server that is only asked where another one is.
type opener func(address string, deadline time.Time) (*conn, error)

// sentinelOpener returns the opener for sentinels.
func sentinelOpener(s *Store) opener {
	return func(address string, deadline time.Time) (*conn, error) {
		user := s.settings.Sentinel.Username
		return openForAsking(s, address, deadline, func(login *Login) []string { return authCommand(user, login.SentinelPassword) })
	}
}

// nodeOpener returns the opener for the nodes of a cluster.
func nodeOpener(s *Store) opener {
	return func(address string, deadline time.Time) (*conn, error) {
		user := s.settings.Username
		return openForAsking(s, address, deadline, func(login *Login) []string { return authCommand(user, login.Password) })
	}
}

// openForAsking makes a connection and authenticates. If that fails, and the login has changed meanwhile, it tries once more.
func openForAsking(s *Store, address string, deadline time.Time, auth func(login *Login) []string) (*conn, error) {
	login := s.login()
	c, err := openWith(s, address, deadline, login, auth(login))
	if err != nil && rereadLogin(s, login, err) {
		login = s.login()
		c, err = openWith(s, address, deadline, login, auth(login))
	}
	return c, err
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
