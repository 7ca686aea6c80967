package resilience

import (
	"net/http"
	"strconv"
	"strings"

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
	none         string   // RateLimit up to the seconds, if no token is left
	rest         int64    // microseconds from one token to a full bucket
	capacity     []string // the value of X-RateLimit-Limit

	// Of routes under plans: the item of RateLimit-Policy for the limits of each bucket value. The lock of the engines guards it.
	policies map[*ratelimit.Levels]string

	// What texts returns, prepared.
	nearlyFull [][]string
	leftTexts  map[int64][][]string // by the tokens of a grant; the lock of the engines guards it
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
	h := &rateHeaders{
		draft: which != ratesOlder, older: which != ratesDraft, always: on == ratesAlways,
		policy:   []string{policyItem(defaultLimit, limit)},
		item:     name + ";r=",
		none:     name + ";r=0;t=",
		rest:     ratelimit.RestTime(limit),
		capacity: []string{capacity}, leftTexts: map[int64][][]string{},
		policies: map[*ratelimit.Levels]string{},
	}
	left := &ratelimit.Left{}
	ratelimit.SetNearlyFull(left, limit)
	h.nearlyFull = h.texts(left)
	return h
}

// policyItem returns what RateLimit-Policy says of a limit.
func policyItem(name string, limit *ratelimit.Limit) string {
	return `"` + name + `";q=` + strconv.FormatInt(ratelimit.Capacity(limit), 10) + ";w=" + seconds(ratelimit.FillTime(limit))[0]
}

// setRates writes the headers of an admitted request.
func setRates(h *rateHeaders, header http.Header, left *ratelimit.Left) {
	if left.NearlyFull {
		writeRates(h, header, h.nearlyFull)
	} else if left.Known {
		writeRates(h, header, h.texts(left))
	}
}

// writeRates writes the headers. texts says what is left.
func writeRates(h *rateHeaders, header http.Header, texts [][]string) {
	if h.draft {
		header["Ratelimit-Policy"] = h.policy
		header["Ratelimit"] = texts[0]
	}
	if h.older {
		header["X-Ratelimit-Limit"] = h.capacity
		header["X-Ratelimit-Remaining"] = texts[1]
		header["X-Ratelimit-Reset"] = texts[2]
	}
}

// setRatesOfRefusal writes the headers of a refusal, whose bucket has a token again in retryAfter microseconds, which are wait in seconds. It
// is no method: refusals must cost little (R4).
func setRatesOfRefusal(h *rateHeaders, header http.Header, retryAfter int64, wait []string) {
	if h.draft {
		header["Ratelimit-Policy"] = h.policy
		header["Ratelimit"] = []string{h.none + wait[0]}
	}
	if h.older {
		header["X-Ratelimit-Limit"] = h.capacity
		header["X-Ratelimit-Remaining"] = noTokens
		header["X-Ratelimit-Reset"] = seconds(retryAfter + h.rest)
	}
}

// noTokens is the value of X-RateLimit-Remaining of a refusal.
var noTokens = []string{"0"}

// texts returns what is left as the values of RateLimit, X-RateLimit-Remaining and X-RateLimit-Reset.
func (h *rateHeaders) texts(left *ratelimit.Left) [][]string {
	tokens := strconv.FormatInt(left.Tokens, 10)
	return [][]string{{h.item + tokens + ";t=" + seconds(left.Next)[0]}, {tokens}, seconds(left.Full)}
}

// The values of admitted requests' headers are prepared, by the tokens that are left of a grant.
const (
	maxLeftTexts = ratelimit.MaxLeftOfGrant // the greatest number of tokens
	leftTogether = 16                       // numbers that are prepared at once: the next requests need those below
)

// prepare prepares the values of a number of tokens, and of those below.
func (h *rateHeaders) prepare(m *Middleware, tokens int64) {
	if tokens > maxLeftTexts {
		tokens = maxLeftTexts
	}
	made := map[int64][][]string{}
	for n := tokens; n >= 0 && n > tokens-leftTogether; n-- {
		left := &ratelimit.Left{}
		ratelimit.SetLeftOfGrant(left, m.limit, n)
		made[n] = h.texts(left)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for n, texts := range made {
		h.leftTexts[n] = texts
	}
}

// slowCountedLocked is step 4 of a request whose grant cannot decide, or has a number of tokens left without prepared values. It releases
// the lock.
func slowCountedLocked(m *Middleware, w http.ResponseWriter, r *http.Request, g *ratelimit.Grant, now int64) {
	left := int64(-1)
	if g.Tokens > 0 && now < g.Until {
		left = g.Tokens - 1
	} else if now < g.RefuseUntil {
		refuseOwnLocked(m, w, r, g, now)
		return
	}
	m.renewed++
	m.mu.Unlock()
	if left >= 0 {
		m.rates.prepare(m, left)
	}
	slowAcquireCounted(m, &slowRequest{w: w, r: r, now: now, closed: true, closedAt: now, upload: hasBody(r)})
}

// askCountedLocked asks Redis for a token, and writes the headers of a request that gets it. It returns the verdict, and releases the lock.
func askCountedLocked(m *Middleware, w http.ResponseWriter, id string, now int64) int64 {
	left := &ratelimit.Left{}
	verdict := ratelimit.AllowIDCounted(m.cache, id, now, left)
	if verdict > 0 {
		setRates(m.rates, w.Header(), left)
	}
	return verdict
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
	if verdict > 0 {
		setRates(m.rates, s.w.Header(), left)
	}
	slowDecide(m, s, verdict)
}

// allowLocal takes a token without asking Redis, and tells the client what is left if the configuration asks for it.
func allowLocal(m *Middleware, s *slowRequest) int64 {
	key := m.bucketKeyOf(s.r)
	if !m.countsLeft {
		return ratelimit.AllowLocal(m.limiter, key, m.limit, s.now)
	}
	left := &ratelimit.Left{}
	verdict := ratelimit.AllowLocalCounted(m.limiter, key, m.limit, s.now, left)
	if verdict > 0 {
		setRates(m.rates, s.w.Header(), left)
	}
	return verdict
}

// setRatesOfPlan writes the headers of a request under a plan: all limits that apply to it, and what is left under the tightest one.
func setRatesOfPlan(m *Middleware, header http.Header, plan *ratelimit.Plan, left *ratelimit.PlanLeft) {
	if left == nil || left.Left == nil {
		return
	}
	tokens := strconv.FormatInt(left.Left.Tokens, 10)
	if m.rates.draft {
		header["Ratelimit-Policy"] = []string{policyOf(m, plan)}
		header["Ratelimit"] = []string{`"` + left.Name + `";r=` + tokens + ";t=" + seconds(left.Left.Next)[0]}
	}
	if m.rates.older {
		header["X-Ratelimit-Limit"] = []string{strconv.FormatInt(ratelimit.Capacity(left.Limit), 10)}
		header["X-Ratelimit-Remaining"] = []string{tokens}
		header["X-Ratelimit-Reset"] = seconds(left.Left.Full)
	}
}

// policyOf returns the value of RateLimit-Policy under a plan.
func policyOf(m *Middleware, plan *ratelimit.Plan) string {
	items := make([]string, len(plan.Draws))
	for i := range plan.Draws {
		items[i] = policyOfLevels(m, plan.Draws[i].Levels)
	}
	return strings.Join(items, ", ")
}

// policyOfLevels returns the items of the limits that share a bucket value. It remembers them: a route has few such sets.
func policyOfLevels(m *Middleware, levels *ratelimit.Levels) string {
	m.mu.Lock()
	text := m.rates.policies[levels]
	m.mu.Unlock()
	if text != "" {
		return text
	}
	items := []string{}
	levels.Each(func(name string, limit *ratelimit.Limit) { items = append(items, policyItem(name, limit)) })
	text = strings.Join(items, ", ")
	m.mu.Lock()
	m.rates.policies[levels] = text
	m.mu.Unlock()
	return text
}
