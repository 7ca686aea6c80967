package resilience

import (
	"net/http"
	"strconv"

	"github.com/resilient-gateway/resilience/ratelimit"
)

// What clients are told of their buckets, if the configuration asks for it: the fields of draft-ietf-httpapi-ratelimit-headers, revision 10,
// or the older X-RateLimit headers, or both. The number left is never above the truth: it is what Redis has reported to this very request,
// or else the tokens that this gateway holds. Times are durations: no clock but the client's is needed.

// defaultLimit is the name of the limit that the rateLimit block has itself.
const defaultLimit = "default"

// The values of rateLimit.responseHeaders and rateLimit.responseHeadersOn.
const (
	ratesNone    = "none"
	ratesDraft   = "ratelimit"
	ratesOlder   = "x-ratelimit"
	ratesBoth    = "both"
	ratesAlways  = "always"
	ratesRefused = "refused"
)

// rateHeaders writes the headers of one limit. What does not change is prepared.
type rateHeaders struct {
	draft, older bool
	always       bool     // admitted requests have them too
	policy       []string // the value of RateLimit-Policy
	item         string   // RateLimit up to the number left
	capacity     []string // the value of X-RateLimit-Limit
}

// readRateHeaders returns nil if there are to be no headers.
func readRateHeaders(r *problems, s *settings, c *RateLimitConfig) *rateHeaders {
	which, on := c.ResponseHeaders, c.ResponseHeadersOn
	if which == "" {
		which = ratesNone
	}
	if on == "" {
		on = ratesAlways
	}
	if which != ratesNone && which != ratesDraft && which != ratesOlder && which != ratesBoth {
		r.choice("rateLimit.responseHeaders", which, ratesNone, ratesDraft, ratesOlder, ratesBoth)
		return nil
	}
	if on != ratesAlways && on != ratesRefused {
		r.choice("rateLimit.responseHeadersOn", on, ratesAlways, ratesRefused)
		return nil
	}
	if which == ratesNone {
		return nil
	}
	s.parts = append(s.parts, "response headers: "+which+", "+on)
	return newRateHeaders(s.limit, which, on)
}

func newRateHeaders(limit *ratelimit.Limit, which, on string) *rateHeaders {
	capacity := strconv.FormatInt(ratelimit.Capacity(limit), 10)
	name := `"` + defaultLimit + `"`
	return &rateHeaders{
		draft: which != ratesOlder, older: which != ratesDraft, always: on == ratesAlways,
		policy:   []string{name + ";q=" + capacity + ";w=" + seconds(ratelimit.FillTime(limit))[0]},
		item:     name + ";r=",
		capacity: []string{capacity},
	}
}

// set writes the headers.
func (h *rateHeaders) set(header http.Header, left *ratelimit.Left) {
	if !left.Known {
		return
	}
	tokens := strconv.FormatInt(left.Tokens, 10)
	if h.draft {
		header["Ratelimit-Policy"] = h.policy
		header["Ratelimit"] = []string{h.item + tokens + ";t=" + seconds(left.Next)[0]}
	}
	if h.older {
		header["X-Ratelimit-Limit"] = h.capacity
		header["X-Ratelimit-Remaining"] = []string{tokens}
		header["X-Ratelimit-Reset"] = seconds(left.Full)
	}
}

// countedPath returns the handler of a route whose admitted requests have the headers too. It has the six steps of the fast path as calls of
// the slow path's functions, which costs more.
func countedPath(m *Middleware) http.HandlerFunc {
	var checks bool // requests are checked for other instances on the same route; guarded by mu
	mu, now := m.mu, m.now
	m.setFast = func(on bool, _ func(*tracked)) { checks = on }
	return func(w http.ResponseWriter, r *http.Request) {
		arrived := now()
		mu.Lock()
		if checks {
			checkedLocked(m, w, r)
			return
		}
		if m.policy != nil && arrived >= m.view.Healthy {
			slowCircuitLocked(m, w, r, arrived)
			return
		}
		mu.Unlock()
		slowAcquireCounted(m, &slowRequest{w: w, r: r, now: arrived, closed: true, closedAt: arrived, upload: hasBody(r)})
	}
}

// slowAcquireCounted is slowAcquire, and tells the client what is left of its bucket.
func slowAcquireCounted(m *Middleware, s *slowRequest) {
	id := identityOf(m, s.r)
	if id == "" && m.derived {
		slowMissing(m, s)
		return
	}
	left := &ratelimit.Left{}
	verdict := ratelimit.AllowCachedCounted(m.cache, id, s.now, left)
	if verdict == 0 {
		if m.policy != nil && !s.closed {
			s.asked = m.breaker.RequestPermit(m.policy, s.upload, s.now)
			if s.asked != nil {
				defer m.breaker.CancelUnclaimed(s.asked)
			}
		}
		s.closed = false // the verdict says whether it still is
		verdict = ratelimit.AllowCounted(m.cache, id, s.now, left)
	}
	if verdict == ratelimit.Undecided && (m.store == nil || m.onError == onErrorLocal) {
		verdict = allowLocalCounted(m, s, left)
	}
	if verdict > 0 && m.rates.always {
		m.rates.set(s.w.Header(), left)
	}
	slowDecide(m, s, verdict)
}

// allowLocalCounted decides without Redis.
func allowLocalCounted(m *Middleware, s *slowRequest, left *ratelimit.Left) int64 {
	if m.store != nil {
		m.logRedisError(ratelimit.LastErr(m.cache))
	}
	return ratelimit.AllowLocalCounted(m.limiter, m.bucketKeyOf(s.r), m.limit, s.now, left)
}
