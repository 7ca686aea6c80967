package resilience

import "sync"

const (
	maxSampled = 1024 // keys that a sampler tells apart
	sweeps     = 16   // of a full sampler in its stretch of time, at the most
)

// sampler picks the first event of a key in each stretch of time, and counts the others, so that a flood of requests is
// no flood of log lines. It is safe for concurrent use.
type sampler struct {
	every int64 // microseconds

	mu    sync.Mutex // guards what follows
	seen  map[string]*sample
	sweep int64 // time from which on a full sampler may be swept again
}

type sample struct {
	next  int64 // time from which on an event is due again
	count int   // of those since the last one that was
}

func newSampler(every int64) *sampler {
	return &sampler{every: every, seen: map[string]*sample{}}
}

// due tells whether the event of this key is to be logged, and how many before it were not.
func (s *sampler) due(key string, now int64) (before int, due bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.seen[key]
	if one == nil {
		if len(s.seen) >= maxSampled && now >= s.sweep {
			s.forget(now)
		}
		if len(s.seen) >= maxSampled {
			key = "" // all others are one
			one = s.seen[key]
		}
	}
	if one == nil {
		one = &sample{}
		s.seen[key] = one
	}
	if now < one.next {
		one.count++
		return 0, false
	}
	before = one.count
	one.count = 0
	one.next = now + s.every
	return before, true
}

// forget drops the keys of which any event would be due, though some then go uncounted. It looks at all keys, and so is
// not done for each event of a flood. mu is held.
func (s *sampler) forget(now int64) {
	s.sweep = now + s.every/sweeps
	for key, one := range s.seen {
		if now >= one.next {
			delete(s.seen, key)
		}
	}
}
