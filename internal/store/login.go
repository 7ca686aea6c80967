package store

import "crypto/tls"

// Login is what servers must be shown. It does not change.
type Login struct {
	Password         string
	SentinelPassword string
	TLS              *tls.Config // nil: plain connections
	Version          string      // differs if anything else does
}

// login returns what to show now.
func (s *Store) login() *Login {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.currentLogin == nil {
		settings := s.settings
		s.currentLogin = &Login{Password: settings.Password, TLS: settings.TLS, Version: settings.LoginVersion}
		if settings.Sentinel != nil {
			s.currentLogin.SentinelPassword = settings.Sentinel.Password
		}
	}
	return s.currentLogin
}

// rereadLogin reads the files of passwords and certificates again after a failure, and reports whether they have changed since
// the login that failed. Other failures than those of the network may be due to them: with TLS 1.3 the server's verdict on a
// certificate arrives late.
func rereadLogin(s *Store, failed *Login, err error) bool {
	if s.settings.Reread == nil || isTimeout(err) || isDialError(err) {
		return false
	}
	if current := s.login(); current.Version != failed.Version {
		return true // by another attempt
	}
	renewed := s.settings.Reread()
	if renewed == nil || renewed.Version == failed.Version {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.currentLogin = renewed
	return true
}
