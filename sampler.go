package resilience

import "sync"

const (
	maxSampled = 1024 // keys that a sampler tells apart
	maxSweeps  = 16   // how often a full sampler is swept in one interval, at most
)

// sampler picks the first event of a key in each interval and counts the others, so that a flood of requests does not flood the log. It
// is safe for concurrent use.
type sampler struct {
	every int64 // microseconds

	mu        sync.Mutex // guards what follows
	seen      map[string]*sample
	nextSweep int64 // time from which on a full sampler may be swept again
}

type sample struct {
	next  int64 // time from which on an event is due again
	count int   // of the events since the last one that was due
}

func newSampler(every int64) *sampler {
	return &sampler{every: every, seen: map[string]*sample{}}
}

// due reports whether this event of the key is to be logged, and how many before it were not.
func (s *sampler) due(key string, now int64) (before int, due bool) { return s.dueAfter(key, 0, now) }

// dueAfter is due for an event before which others were counted elsewhere.
func (s *sampler) dueAfter(key string, earlier int, now int64) (before int, due bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.seen[key]
	if one == nil {
		if len(s.seen) >= maxSampled && now >= s.nextSweep {
			s.forgetLocked(now)
		}
		if len(s.seen) >= maxSampled {
			key = "" // all other keys count as one
			one = s.seen[key]
		}
	}
	if one == nil {
		one = &sample{}
		s.seen[key] = one
	}
	if now < one.next {
		one.count += earlier + 1
		return 0, false
	}
	before = one.count + earlier
	one.count = 0
	one.next = now + s.every
	return before, true
}

// count counts events of a key that were not reported one by one.
func (s *sampler) count(key string, events int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if one := s.seen[key]; one != nil {
		one.count += events
	}
}

// forgetLocked drops the keys whose next event would be due anyway, although the events that they counted are lost. It looks at all keys, so
// it is not called for each event of a flood.
func (s *sampler) forgetLocked(now int64) {
	s.nextSweep = now + s.every/maxSweeps
	for key, one := range s.seen {
		if now >= one.next {
			delete(s.seen, key)
		}
	}
}
