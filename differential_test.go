package resilience

import (
	"context"
	"fmt"
	"io"
	"math/rand"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/resilient-gateway/resilience/internal/statuswriter"
	"github.com/resilient-gateway/resilience/ratelimit"
	"github.com/stretchr/testify/require"
)

// fastVariants are the configurations that have a generated handler each.
func fastVariants() []fastVariant {
	byHeader := &SourceCriterionConfig{RequestHeaderName: "X-Api-Key"}
	byHost := &SourceCriterionConfig{RequestHost: "true"}
	byHeaderOr := func(missing string) *SourceCriterionConfig {
		return &SourceCriterionConfig{RequestHeaderName: "X-Api-Key", MissingSource: missing}
	}
	byBoth := func(missing string) *SourceCriterionConfig {
		return &SourceCriterionConfig{IPStrategy: &IPStrategyConfig{}, RequestHeaderName: "X-Api-Key", MissingSource: missing}
	}
	all := []fastVariant{{name: "fastBreak", breaks: true}}
	for _, source := range []struct {
		name   string
		config *SourceCriterionConfig
	}{
		{"Connection", nil}, {"Header", byHeader}, {"Other", byHost},
		{"CheckedHeader, address", byHeaderOr("address")}, {"CheckedHeader, pass", byHeaderOr("pass")}, {"CheckedHeader, deny", byHeaderOr("deny")},
		{"Derived, shared", byBoth("shared")}, {"Derived, address", byBoth("address")}, {"Derived, pass", byBoth("pass")},
		{"Derived, deny", byBoth("deny")}, {"Derived, all", &SourceCriterionConfig{All: "true"}},
	} {
		for _, shown := range []struct {
			name, headers string
			answers       *AnswersConfig
		}{
			{"", "", nil},
			{"Own", "", &AnswersConfig{RateLimited: &AnswerConfig{Body: `{"wait":{retryAfter}}`, Headers: map[string]string{"X-Reason": "limit"}}}},
			{"Counted", "both", nil},
		} {
			limit := fastVariant{name: "fastLimit" + source.name + shown.name, limits: true, source: source.config, headers: shown.headers, answers: shown.answers}
			both := limit
			both.name, both.breaks = "fastBoth"+source.name+shown.name, true
			all = append(all, limit, both)
		}
	}
	for _, source := range []struct {
		name   string
		config *SourceCriterionConfig
	}{
		{"Connection", nil}, {"Header", byHeader}, {"Other", byHost}, {"Derived, address", byHeaderOr("address")}, {"Derived, deny", byHeaderOr("deny")},
	} {
		for _, everyone := range []bool{false, true} {
			limit := fastVariant{name: fmt.Sprint("fastPlan", source.name, ", everyone ", everyone), limits: true, plans: true, source: source.config, everyone: everyone}
			both := limit
			both.name, both.breaks = "both, "+limit.name, true
			all = append(all, limit, both)
		}
	}
	return all
}

type fastVariant struct {
	name           string
	limits, breaks bool
	source         *SourceCriterionConfig
	headers        string // rateLimit.responseHeaders
	answers        *AnswersConfig
	plans          bool // there is another limit of the client
	everyone       bool // and one for everybody
}

// addLimits adds the further limits of a variant. They have twice the tokens that the block's own limit has, but refill more slowly.
func (v *fastVariant) addLimits(limit *RateLimitConfig) {
	if !v.plans {
		return
	}
	double := fmt.Sprint(2 * count(limit.Capacity))
	limit.Limits = map[string]*LimitConfig{"long": {Capacity: double, RefillPeriod: "3s"}}
	if v.everyone {
		limit.Limits["everyone"] = &LimitConfig{Capacity: double, RefillPeriod: "600ms", SourceCriterion: &SourceCriterionConfig{All: "true"}}
	}
}

// config returns the variant's configuration, with what a test wants of each part.
func (v *fastVariant) config(redis *RedisConfig, limit RateLimitConfig, circuit *CircuitBreakerConfig) *Config {
	config := &Config{Redis: redis, Answers: v.answers}
	if v.limits {
		limit.ResponseHeaders = v.headers
		limit.SourceCriterion = v.source
		v.addLimits(&limit)
		config.RateLimit = &limit
	}
	if v.breaks {
		config.CircuitBreaker = circuit
	}
	return config
}

// twin is one of two middlewares that get the same requests.
type twin struct {
	m       *Middleware
	handler http.HandlerFunc
}

// newTwins returns two middlewares of one configuration before one upstream: the first answers by its fast path, the second by its slow
// path alone.
func newTwins(t *testing.T, config *Config, up http.Handler) []*twin {
	var twins []*twin
	for _, name := range []string{"fast", "slow"} {
		ctx, cancel := context.WithCancel(context.Background())
		t.Cleanup(cancel)
		m, err := newMiddleware(ctx, up, config, nameOf(t)+name)
		require.NoError(t, err)
		m.setChecks(false)
		twins = append(twins, &twin{m: m, handler: fastAlone(m)})
	}
	twins[1].handler = slowAlone(twins[1].m)
	return twins
}

// fastAlone returns the generated handler of a middleware, without the switch to that of an open circuit, which looks at no clock.
func fastAlone(m *Middleware) http.HandlerFunc {
	if m.fast != nil {
		return m.fast
	}
	return func(w http.ResponseWriter, r *http.Request) { m.handler.ServeHTTP(w, r) }
}

// slowAlone returns a handler that has the slow path do all steps of each request.
func slowAlone(m *Middleware) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		now := m.now()
		if m.policy != nil {
			m.mu.Lock()
			slowCircuitLocked(m, w, r, now)
			return
		}
		slowAcquire(m, &slowRequest{w: w, r: r, now: now})
	}
}

// ask returns the answer to a request, in words, or that the handler panicked.
func (o *twin) ask(r *http.Request, knowsStatus bool) (answer string) {
	known := statuswriter.New()
	var w http.ResponseWriter = known
	if !knowsStatus {
		w = known.ResponseRecorder
	}
	defer func() {
		if reason := recover(); reason != nil {
			answer = fmt.Sprintf("panic: %v", reason)
		}
	}()
	o.handler(w, r)
	body, _ := io.ReadAll(known.Body)
	return fmt.Sprintf("%d %v %s", known.Code, known.Header(), body)
}

// identity returns the identity of a client's requests.
func (o *twin) identity(id string) string {
	request := &randomRequest{method: "GET", id: id, lines: 1}
	return identityOf(o.m, request.make())
}

// state returns what is known of the limiter and the breaker after a request, in words.
func (o *twin) state(ids []string) string {
	m := o.m
	m.mu.Lock()
	defer m.mu.Unlock()
	text := fmt.Sprintf("healthy until %d, open until %d, failing %d", m.view.Healthy, m.view.Open, len(m.view.Failing))
	for _, id := range ids {
		if g := m.cache.Grants[o.identity(id)]; g != nil {
			text += fmt.Sprintf("; %s: %d until %d, refused until %d, next %d", id, g.Tokens, g.Until, g.RefuseUntil, g.NextToken)
		}
	}
	return text
}

// randomRequest is a request of one of a few clients, to be made anew for each twin.
type randomRequest struct {
	method, id, body string
	unknownLength    bool
	lines            int // of the header
	knowsStatus      bool
}

func newRandomRequest(random *rand.Rand, ids []string) *randomRequest {
	request := &randomRequest{method: "GET", id: ids[random.Intn(len(ids))], lines: 1, knowsStatus: random.Intn(3) > 0}
	if random.Intn(4) == 0 {
		request.method = "POST"
		request.body = strings.Repeat("x", random.Intn(6000))
		request.unknownLength = random.Intn(2) == 0
	}
	if random.Intn(8) == 0 {
		request.lines = random.Intn(3)
	}
	return request
}

// shorten makes the request one that is no upload.
func (q *randomRequest) shorten() {
	q.unknownLength = false
	if len(q.body) > smallBody {
		q.body = q.body[:smallBody]
	}
}

func (q *randomRequest) make() *http.Request {
	r := httptest.NewRequest(q.method, "/", nil)
	if q.body != "" {
		r = httptest.NewRequest(q.method, "/", strings.NewReader(q.body))
		if q.unknownLength {
			r.ContentLength = -1
		}
	}
	r.RemoteAddr = q.id
	r.Host = q.id
	if q.lines == 2 {
		r.Header.Add("X-Api-Key", "of another client")
	}
	if q.lines > 0 {
		r.Header.Add("X-Api-Key", q.id)
	}
	return r
}

// randomUpstream answers what the test has drawn, after it has read the body.
type randomUpstream struct{ status int }

func (u *randomUpstream) draw(random *rand.Rand) {
	u.status = randomStatuses[random.Intn(len(randomStatuses))]
	if random.Intn(30) == 0 {
		u.status = 0 // it panics
	}
}

func (u *randomUpstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	read, _ := io.Copy(io.Discard, r.Body)
	if u.status == 0 {
		panic("upstream panics")
	}
	w.WriteHeader(u.status)
	fmt.Fprintf(w, "read %d", read)
}

var randomStatuses = []int{200, 200, 200, 204, 404, 500, 502, 503}

// Whatever state a middleware is in, a request has the same answer on the fast path as on the slow path alone, and leaves the same state.
func TestFastPath_answersAsTheSlowPathDoes(t *testing.T) {
	ids := []string{"192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1"}
	for i, variant := range fastVariants() {
		variant, seed := variant, int64(i)
		t.Run(variant.name, func(t *testing.T) {
			newProcess(t, time.Hour)
			clock := newStoppedClock(t)
			up := &randomUpstream{}
			twins := newTwins(t, variant.config(nil,
				RateLimitConfig{Capacity: "4", RefillRate: "1", RefillPeriod: "1s"},
				&CircuitBreakerConfig{FailureThreshold: "3", ResetTimeout: "3s"}), up)
			random := rand.New(rand.NewSource(seed))
			seen, admittedWithHeaders := map[string]int{}, 0
			for step := 0; step < 800; step++ {
				change(random, clock, twins, ids)
				up.draw(random)
				request := newRandomRequest(random, ids)
				if twins[0].m.breaker.Probing() {
					request.shorten() // the end of an upload is reported in the background
				}
				var answers, states []string
				for _, twin := range twins {
					answers = append(answers, twin.ask(request.make(), request.knowsStatus))
					states = append(states, twin.state(ids))
				}
				require.Equal(t, answers[1], answers[0], "step %d: %+v", step, *request)
				require.Equal(t, states[1], states[0], "step %d: %+v", step, *request)
				seen[answers[0][:3]]++
				if strings.HasPrefix(answers[0], "200") && strings.Contains(answers[0], "Ratelimit-Remaining") {
					admittedWithHeaders++
				}
			}
			require.Equal(t, variant.headers != "", admittedWithHeaders > 20, "admitted requests with headers: %d", admittedWithHeaders)
			for _, answer := range wanted(variant) {
				require.Greater(t, seen[answer], 4, "answers that begin with %s", answer)
			}
		})
	}
}

// wanted returns how the answers begin that a variant must have given.
func wanted(v fastVariant) []string {
	all := []string{"200", "500", "pan"}
	if v.limits {
		all = append(all, "429")
	}
	if v.breaks {
		all = append(all, "503")
	}
	if v.source != nil && v.source.MissingSource == "deny" {
		all = append(all, "403")
	}
	return all
}

// change lets time pass, gives a client a grant such as Redis gives, or makes the view too old, alike for all twins.
func change(random *rand.Rand, clock *clock, twins []*twin, ids []string) {
	passed := []time.Duration{0, 0, time.Microsecond, 10 * time.Millisecond, 300 * time.Millisecond, 1100 * time.Millisecond, 4 * time.Second}
	clock.advance(passed[random.Intn(len(passed))])
	now := twins[0].m.now()
	what, id := random.Intn(6), ids[random.Intn(len(ids))]
	tokens, until := random.Int63n(3), now+random.Int63n(2000000)-1000000
	next := now + random.Int63n(3000000) - 1000000
	for _, twin := range twins {
		m := twin.m
		m.mu.Lock()
		if what == 0 && m.limit != nil && m.rules == nil { // leases of plans have several levels: only Redis gives them
			m.cache.Grants[twin.identity(id)] = &ratelimit.Grant{Tokens: tokens, Until: until, RefuseUntil: next, NextToken: next}
		}
		if what == 1 && m.policy != nil {
			m.view.Healthy = 0
		}
		m.mu.Unlock()
	}
}

// With a Redis, tokens come in leases and the view grows old, by clocks that no test can stop. Where there are tokens enough, the answers
// are the same all the same.
func TestFastPath_answersAsTheSlowPathDoesWithRedis(t *testing.T) {
	ids := []string{"192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1"}
	redis := at(redistest.Start(t).Addr())
	for i, variant := range fastVariants() {
		variant, seed := variant, int64(i)
		t.Run(variant.name, func(t *testing.T) {
			newProcess(t, time.Hour)
			up := &randomUpstream{}
			twins := newTwins(t, variant.config(redis,
				RateLimitConfig{Capacity: "100000", RefillRate: "100000", RefillPeriod: "1h"},
				&CircuitBreakerConfig{FailureThreshold: "20", ResetTimeout: "1h"}), up)
			random := rand.New(rand.NewSource(seed))
			for step := 0; step < 150; step++ {
				up.draw(random)
				request := newRandomRequest(random, ids)
				fast := twins[0].ask(request.make(), request.knowsStatus)
				slow := twins[1].ask(request.make(), request.knowsStatus)
				require.Equal(t, slow[:3], fast[:3], "step %d: %+v", step, *request)
			}
		})
	}
}

// Neither path admits more than a bucket in Redis holds.
func TestFastPath_admitsNoMoreThanABucketHolds(t *testing.T) {
	redis := at(redistest.Start(t).Addr())
	for _, variant := range fastVariants() {
		variant := variant
		if !variant.limits {
			continue
		}
		t.Run(variant.name, func(t *testing.T) {
			newProcess(t, time.Hour)
			for _, twin := range newTwins(t, variant.config(redis, *tokens("20"), failures("5")), &randomUpstream{status: 200}) {
				seen := map[string]int{}
				for n := 0; n < 40; n++ {
					request := &randomRequest{method: "GET", id: "192.0.2.1:1", lines: 1}
					answer := twin.ask(request.make(), true)
					seen[answer[:3]]++
				}
				require.LessOrEqual(t, seen["200"], 20)
				require.Greater(t, seen["200"], 10)
				require.Equal(t, 40, seen["200"]+seen["429"])
			}
		})
	}
}
