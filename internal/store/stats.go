package store

import (
	"errors"
	"sort"
	"time"
)

// Bounds are the upper bounds of the durations that Stats counts, in seconds.
var Bounds = []float64{0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5}

// Stats counts the calls of a store, each once.
type Stats struct {
	OK, Errors, Unanswered int64   // answered; answered with an error of the script; not answered in time
	Counts                 []int64 // of durations, by Bounds and one more
	Sum                    float64 // of durations, in seconds
	Last                   float64 // the duration of the last call that was answered, in seconds
}

// Count has the store count its calls from now on. It changes nothing if it does already.
func (s *Store) Count() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stats == nil {
		s.stats = &Stats{Counts: make([]int64, len(Bounds)+1)}
	}
}

// Stats returns a copy of the counts, or nil if the store does not count.
func (s *Store) Stats() *Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stats == nil {
		return nil
	}
	copied := *s.stats
	copied.Counts = append([]int64{}, s.stats.Counts...)
	return &copied
}

// Address returns the address that the store was made with.
func (s *Store) Address() string { return s.settings.Address }

// Topology returns whether the address is that of a single server, of sentinels or of a cluster, and the address of the server in use; "": none
// is known yet.
func (s *Store) Topology() (kind, server string) { return s.topology.describe() }

// finishCounted is the end of Run for one call that has its answer, where calls are counted. It takes the lock once for both.
func finishCounted(s *Store, c *conn, stats *Stats) error {
	seconds := float64(time.Since(c.sentAt)) / float64(time.Second)
	place := sort.SearchFloat64s(Bounds, seconds)
	s.mu.Lock()
	stats.Counts[place]++
	stats.Sum += seconds
	stats.OK++
	stats.Last = seconds
	if len(s.waiters) == 0 && len(s.idle) < s.idleCap && !c.expired {
		s.idle = append(s.idle, c)
		c = nil
	}
	s.mu.Unlock()
	if c != nil {
		release(s, c)
	}
	return nil
}

// count counts calls that were made at a time and have their answers or errors.
func (s *Store) count(calls []*Call, begun time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stats == nil {
		return
	}
	for _, call := range calls {
		countLocked(s.stats, call, begun)
	}
}

func countLocked(stats *Stats, call *Call, begun time.Time) {
	err := call.Err
	seconds := time.Since(begun).Seconds()
	stats.Counts[sort.SearchFloat64s(Bounds, seconds)]++
	stats.Sum += seconds
	if err == nil {
		stats.OK++
		stats.Last = seconds
	} else if errors.Is(err, ErrUnavailable) {
		stats.Unanswered++
	} else {
		stats.Errors++
		stats.Last = seconds
	}
}
