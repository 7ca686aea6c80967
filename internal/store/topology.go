package store

import (
	"strings"
	"time"
)

// topology knows which server a store must dial: the one at its address, the master that sentinels announce, or the node of a
// cluster that serves the store's keys. It is safe for concurrent use.
type topology interface {
	// locate returns the address to dial. It asks other servers, until the deadline, if it does not know.
	locate(deadline time.Time) (string, error)

	// verifiesRole reports whether a new connection must show that its server is a master.
	verifiesRole() bool

	// doubt makes the next locate ask: a connection was lost.
	doubt()

	// failed does the same: no connection could be made to the server at the address, or it failed a check.
	failed(address string)

	// redirect notes that a server named another one, which serves the keys now, or "" if it named none.
	redirect(address string)

	// describe returns what kind of topology it is, and the address of the server that it last named; "": none yet.
	describe() (kind, server string)

	// close ends the connections to other servers.
	close()
}

// newTopology returns the topology of the store's settings.
func newTopology(s *Store) topology {
	settings := s.settings
	addresses := strings.Split(settings.Address, ",")
	if settings.Sentinel != nil {
		return newSentinels(s, addresses, settings.Sentinel.Master, sentinelOpener(s))
	}
	if settings.Cluster {
		return newCluster(addresses, slotOf(settings.HashTag), nodeOpener(s))
	}
	return &single{address: settings.Address}
}

// single is one address.
type single struct {
	address string
}

func (t *single) locate(deadline time.Time) (string, error) { return t.address, nil }
func (t *single) verifiesRole() bool                        { return false }
func (t *single) doubt()                                    {}
func (t *single) failed(address string)                     {}
func (t *single) redirect(address string)                   {}
func (t *single) describe() (kind, server string)           { return "single", t.address }
func (t *single) close()                                    {}
