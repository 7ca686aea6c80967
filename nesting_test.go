package resilience

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/identity"
	"github.com/resilient-gateway/resilience/internal/statuswriter"
	"github.com/stretchr/testify/require"
)

// nested returns a chain of middlewares, the outermost first, before a new upstream, as Traefik makes it: from the inside.
func nested(t *testing.T, between func(http.Handler) http.Handler, configs ...*Config) (http.Handler, *upstream) {
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	up := &upstream{}
	return nestedBefore(t, ctx, http.HandlerFunc(up.ServeHTTP), between, configs...), up
}

func nestedBefore(t *testing.T, ctx context.Context, next http.Handler, between func(http.Handler) http.Handler, configs ...*Config) http.Handler {
	for n := len(configs) - 1; n >= 0; n-- {
		next = newHandler(t, ctx, next, configs[n])
		if n > 0 && between != nil {
			next = between(next)
		}
	}
	return next
}

// sum tells how many of so many requests got each status.
func sum(handler http.Handler, requests int) map[int]int {
	counts := map[int]int{}
	for i := 0; i < requests; i++ {
		counts[get(handler)]++
	}
	return counts
}

// askings are the ways to learn a status: by the writer's method, and by recording the answer.
func askings() []asking {
	return []asking{
		{"its writer tells", func(handler http.Handler, path string) int {
			w := statuswriter.New()
			handler.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
			return w.Code
		}},
		{"it is watched", func(handler http.Handler, path string) int { return send(handler, "GET", path).Code }},
	}
}

type asking struct {
	name string
	get  func(handler http.Handler, path string) int
}

// named is a configuration with a name, where the state is.
func named(name string, place place, limit *RateLimitConfig, circuit *CircuitBreakerConfig) *Config {
	return &Config{Name: identity.Hash(name), Redis: place.redis, RateLimit: limit, CircuitBreaker: circuit}
}

func byClient(limit *RateLimitConfig) *RateLimitConfig {
	limit.SourceCriterion = &SourceCriterionConfig{RequestHeaderName: "X-Client"}
	return limit
}

// short is a breaker that gives one place to a probe, a moment after it has opened.
func short(threshold string) *CircuitBreakerConfig {
	return &CircuitBreakerConfig{
		FailureThreshold: threshold, ResetTimeout: "50ms", HalfOpenSuccessThreshold: "1", HalfOpenMaxProbes: "1",
	}
}

func TestNesting_aRequestTakesOneToken(t *testing.T) {
	for _, place := range places(t) {
		for _, row := range []struct {
			name    string
			configs func(name string) []*Config
			passed  int // of 20
		}{
			{"the same twice", func(name string) []*Config {
				return []*Config{named(name, place, tokens("10"), nil), named(name, place, tokens("10"), nil)}
			}, 10},
			{"the same three times", func(name string) []*Config {
				return []*Config{named(name, place, tokens("10"), nil), named(name, place, tokens("10"), nil), named(name, place, tokens("10"), nil)}
			}, 10},
			{"with a breaker", func(name string) []*Config {
				return []*Config{named(name, place, tokens("10"), failures("5")), named(name, place, tokens("10"), failures("5"))}
			}, 10},
			{"another between", func(name string) []*Config {
				return []*Config{
					named(name, place, tokens("10"), nil), named(name+"-other", place, tokens("15"), failures("5")),
					named(name, place, tokens("10"), nil),
				}
			}, 10},
			{"another inside", func(name string) []*Config {
				return []*Config{
					named(name, place, tokens("10"), nil), named(name, place, tokens("10"), nil), named(name+"-other", place, tokens("7"), nil),
				}
			}, 7},
			{"the outer one only breaks", func(name string) []*Config {
				return []*Config{named(name, place, nil, failures("5")), named(name, place, tokens("10"), failures("5"))}
			}, 10},
			{"the inner one has buckets of its own", func(name string) []*Config {
				return []*Config{named(name, place, tokens("10"), nil), named(name, place, byClient(tokens("6")), nil)}
			}, 6},
			{"the inner one limits the same buckets otherwise: each takes", func(name string) []*Config {
				return []*Config{named(name, place, tokens("1000"), nil), named(name, place, tokens("6"), nil)}
			}, 3},
			{"two scopes", func(name string) []*Config {
				return []*Config{named(name, place, tokens("10"), nil), named(name+"-other", place, tokens("6"), nil)}
			}, 6},
		} {
			row := row
			t.Run(row.name+", "+place.name, func(t *testing.T) {
				newProcess(t, 0)
				handler, up := nested(t, nil, row.configs(nameOf(t))...)
				require.Equal(t, map[int]int{200: row.passed, 429: 20 - row.passed}, sum(handler, 20))
				require.Equal(t, row.passed, up.count())
			})
		}
	}
}

// Two limits of the same numbers are the same limit only if their buckets are of the same clients.
func TestNesting_sameLimitByAnotherKeySourceIsAnotherLimit(t *testing.T) {
	newProcess(t, 0)
	instanceOf := func(limit *RateLimitConfig) *instance {
		m, err := newMiddleware(context.Background(), status(200), &Config{Name: "shared", RateLimit: limit}, nameOf(t))
		require.NoError(t, err)
		return m.instance
	}
	byAddress, byAddressToo, byHeader := instanceOf(tokens("10")), instanceOf(tokens("10")), instanceOf(byClient(tokens("10")))
	outermost := &outer{instance: byAddress, part: &part{limits: true}}
	require.True(t, limitsAlike(outermost, byAddressToo))
	require.False(t, limitsAlike(outermost, byHeader))
}

func TestNesting_aFailureCountsOnce(t *testing.T) {
	for _, place := range places(t) {
		for _, asking := range askings() {
			asking := asking
			place := place
			t.Run(asking.name+", "+place.name, func(t *testing.T) {
				newProcess(t, 0)
				both := named(nameOf(t), place, tokens("1000"), failures("4"))
				handler, up := nested(t, nil, both, both)
				up.will(status(500))
				for i := 0; i < 4; i++ {
					require.Equal(t, 500, asking.get(handler, "/"))
				}
				require.Equal(t, 503, asking.get(handler, "/"))
				require.Equal(t, 4, up.count())
			})
		}
	}
}

func TestNesting_oneProbeClosesTheCircuit(t *testing.T) {
	for _, place := range places(t) {
		for _, asking := range askings() {
			asking := asking
			place := place
			t.Run(asking.name+", "+place.name, func(t *testing.T) {
				newProcess(t, 0)
				one := named(nameOf(t), place, nil, short("1"))
				handler, up := nested(t, nil, one, one)
				up.will(status(500))
				require.Equal(t, 500, asking.get(handler, "/"))
				up.will(nil)
				require.Eventually(t, func() bool { return asking.get(handler, "/") == 200 }, time.Second, time.Millisecond)
				for i := 0; i < 20; i++ {
					require.Equal(t, 200, asking.get(handler, "/"))
				}
			})
		}
	}
}

// pages asks for a page instead of each answer that is a failure, as Traefik's errors middleware does: with a request of its own.
func pages(page http.Handler) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			heard := httptest.NewRecorder()
			next.ServeHTTP(heard, r)
			if heard.Code < 500 {
				deliver(w, heard)
				return
			}
			ask := httptest.NewRequest("GET", "/page", nil).WithContext(r.Context())
			ask.RemoteAddr = ""
			w.WriteHeader(heard.Code)
			page.ServeHTTP(httptest.NewRecorder(), ask)
			io.WriteString(w, "sorry")
		})
	}
}

// tries asks once more after a failure, as Traefik's retry does.
func tries(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		heard := httptest.NewRecorder()
		next.ServeHTTP(heard, r)
		if heard.Code < 500 {
			deliver(w, heard)
			return
		}
		next.ServeHTTP(w, r.Clone(r.Context()))
	})
}

func deliver(w http.ResponseWriter, heard *httptest.ResponseRecorder) {
	w.WriteHeader(heard.Code)
	w.Write(heard.Body.Bytes())
}

// rewrites is a middleware that leaves nothing of an answer but that it is a failure.
func rewrites(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		heard := httptest.NewRecorder()
		next.ServeHTTP(heard, r)
		if heard.Code >= 400 {
			w.WriteHeader(502)
			return
		}
		deliver(w, heard)
	})
}

// readdresses is a middleware that takes the client's address from somewhere else.
func readdresses(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.RemoteAddr = "192.0.2.1:4711" // of the same bucket
		next.ServeHTTP(w, r)
	})
}

func betweens() []between {
	return []between{
		{"nothing", func(next http.Handler) http.Handler { return next }},
		{"pages", pages(status(200))},
		{"pages that fail", pages(status(500))},
		{"tries", tries},
		{"rewrites", rewrites},
		{"another address", readdresses},
	}
}

type between struct {
	name string
	put  func(http.Handler) http.Handler
}

// refusals are middlewares that refuse all requests, for each reason that there is.
func refusals(t *testing.T, place place, up *upstream) []refusal {
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	service := http.HandlerFunc(up.ServeHTTP)
	open := nestedBefore(t, ctx, service, nil, named(nameOf(t)+"-open", place, nil, failures("1")))
	up.will(status(500))
	require.Equal(t, 500, get(open))
	up.will(nil)
	limited := nestedBefore(t, ctx, service, nil, named(nameOf(t)+"-limited", place, tokens("1"), failures("1")))
	require.Equal(t, 200, get(limited))
	away := &RedisConfig{Address: closedPort, OnError: "deny"}
	denies := nestedBefore(t, ctx, service, nil, &Config{Name: identity.Hash(nameOf(t) + "-denies"), Redis: away, RateLimit: tokens("100")})
	deniesToo := nestedBefore(t, ctx, service, nil, &Config{Name: identity.Hash(nameOf(t) + "-denies-too"), Redis: away, CircuitBreaker: failures("1")})
	return []refusal{
		{"an open circuit", open}, {"an empty bucket", limited}, {"deny of a limiter", denies}, {"deny of a breaker", deniesToo},
	}
}

type refusal struct {
	name    string
	handler http.Handler
}

// past lets requests to /past go past the middlewares inside.
func past(inside http.Handler, up *upstream) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/past" {
			up.ServeHTTP(w, r)
		} else {
			inside.ServeHTTP(w, r)
		}
	})
}

// eachRefusal runs a step for each reason to refuse inside, and for what may be between, with requests to an outer breaker.
func eachRefusal(t *testing.T, circuit *CircuitBreakerConfig, betweens []between, step func(name string, up *upstream, ask func(path string) int)) {
	for _, place := range places(t) {
		newProcess(t, 0)
		up := &upstream{}
		for _, refusal := range refusals(t, place, up) {
			for _, between := range betweens {
				for _, asking := range askings() {
					asking := asking
					name := refusal.name + ", " + between.name + ", " + asking.name + ", " + place.name
					ctx, cancel := context.WithCancel(context.Background())
					inside := past(between.put(refusal.handler), up)
					outer := nestedBefore(t, ctx, inside, nil, named(t.Name()+name, place, nil, circuit))
					step(name, up, func(path string) int { return asking.get(outer, path) })
					cancel()
				}
			}
		}
	}
}

func TestNesting_aRefusalInsideIsNoFailureAndNoSuccess(t *testing.T) {
	eachRefusal(t, failures("2"), betweens(), func(name string, up *upstream, ask func(path string) int) {
		before := up.count()
		for i := 0; i < 5; i++ {
			require.GreaterOrEqual(t, ask("/"), 429, name)
		}
		require.Equal(t, before, up.count(), name)
		require.Equal(t, 200, ask("/past"), "closed: "+name)

		up.will(status(500))
		require.Equal(t, 500, ask("/past"), name)
		require.GreaterOrEqual(t, ask("/"), 429, name)
		require.Equal(t, 500, ask("/past"), name)
		up.will(nil)
		require.Equal(t, 503, ask("/past"), "the two failures are in a row: "+name)
	})
}

func TestNesting_aProbeRefusedInsideGivesItsPlaceBack(t *testing.T) {
	eachRefusal(t, short("1"), betweens()[1:2], func(name string, up *upstream, ask func(path string) int) {
		up.will(status(500))
		require.Equal(t, 500, ask("/past"), name)
		up.will(nil)
		time.Sleep(60 * time.Millisecond)
		before := up.count()
		require.GreaterOrEqual(t, ask("/"), 429, name)
		require.Equal(t, before, up.count(), name)
		require.Equal(t, 200, ask("/past"), "half-open: "+name)
	})
}

// A failover has another service answer, where an instance before the first one refuses.
func TestNesting_theSuccessOfAnotherServiceCounts(t *testing.T) {
	for _, asking := range askings() {
		ctx, _ := inOrder(t)
		answer := 500
		other := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(answer) })
		inner := newMember(t, ctx, other, "inner", nil, failures("1"))
		outer := newMember(t, ctx, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			heard := httptest.NewRecorder()
			inner.handler.ServeHTTP(heard, r)
			if heard.Code < 500 {
				deliver(w, heard)
				return
			}
			other.ServeHTTP(w, r)
		}), "outer", nil, short("1"))
		require.Equal(t, 500, asking.get(outer.handler, "/"))
		answer = 200
		time.Sleep(60 * time.Millisecond)
		for i := 0; i < 5; i++ {
			require.Equal(t, 200, asking.get(outer.handler, "/"), asking.name)
		}
		require.Equal(t, 503, get(inner.handler))
	}
}

func TestNesting_theLastAttemptCounts(t *testing.T) {
	for _, place := range places(t) {
		for _, asking := range askings() {
			asking, place := asking, place
			t.Run(asking.name+", "+place.name, func(t *testing.T) {
				newProcess(t, 0)
				later := func(next http.Handler) http.Handler {
					first := true
					return tries(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if !first {
							time.Sleep(80 * time.Millisecond)
						}
						first = !first
						next.ServeHTTP(w, r)
					}))
				}
				inner, outer := named(nameOf(t)+"-inner", place, nil, short("1")), named(nameOf(t)+"-outer", place, nil, failures("2"))
				handler, up := nested(t, later, outer, inner)
				up.will(status(500))
				require.Equal(t, 500, asking.get(handler, "/"))
				require.Equal(t, 2, up.count())
				require.Equal(t, 500, asking.get(handler, "/"))
				require.Equal(t, 3, up.count(), "the first attempt was refused")
				requireAnswer(t, send(handler, "GET", "/"), 503, openBody, 3600)
			})
		}
	}
}

// The last attempt goes to an instance that has nothing to do, and so refuses nothing.
func TestNesting_theLastAttemptCountsInsideOfTheSameInstance(t *testing.T) {
	for _, asking := range askings() {
		ctx, _ := inOrder(t)
		refusing := newMember(t, ctx, status(500), "refusing", nil, failures("1"))
		require.Equal(t, 500, get(refusing.handler))
		inner := newMember(t, ctx, status(500), "gateway", nil, failures("20"))
		outer := newMember(t, ctx, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			refusing.handler.ServeHTTP(httptest.NewRecorder(), r)
			inner.handler.ServeHTTP(w, r)
		}), "gateway", nil, failures("20"))
		for i := 0; i < 20; i++ {
			require.Equal(t, 500, asking.get(outer.handler, "/"), asking.name)
		}
		require.Equal(t, 503, asking.get(outer.handler, "/"), asking.name)
	}
}

// newMember is an instance in this process, of which the test sees more than its handler.
func newMember(t *testing.T, ctx context.Context, next http.Handler, name string, limit *RateLimitConfig, circuit *CircuitBreakerConfig) *Middleware {
	m, err := newMiddleware(ctx, next, &Config{Name: name, RateLimit: limit, CircuitBreaker: circuit}, name+"@file")
	require.NoError(t, err)
	return m
}

// checks tells whether an instance checks its requests.
func checks(m *Middleware) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.checks
}

// rest has an instance answer requests until it checks none.
func rest(t *testing.T, m *Middleware) {
	for i := 0; i < maxChecks; i++ {
		require.True(t, checks(m))
		require.Equal(t, 200, get(m.handler))
	}
	require.False(t, checks(m))
}

// left tells how many requests the bucket of all clients lets pass.
func left(handler http.Handler) int { return sum(handler, 2000)[200] }

// inOrder is the parts of a chain that a test puts together, each in a process of its own.
func inOrder(t *testing.T) (context.Context, http.Handler) {
	newProcess(t, 0)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	return ctx, status(200)
}

func TestNesting_anInstanceAloneChecksItsFirstRequestsOnly(t *testing.T) {
	for _, row := range []struct {
		name    string
		limit   *RateLimitConfig
		circuit *CircuitBreakerConfig
	}{{"limiter", tokens("5000"), nil}, {"breaker", nil, failures("1")}, {"both", tokens("5000"), failures("1")}} {
		ctx, _ := inOrder(t)
		marked := false
		m := newMember(t, ctx, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { marked = len(outersOf(r)) > 0 }),
			"gateway", row.limit, row.circuit)
		rest(t, m)
		require.True(t, marked, row.name)
		get(m.handler)
		require.False(t, marked, row.name)
	}
}

func TestNesting_anInstanceThatRefusesAllChecksItsFirstRequestsOnly(t *testing.T) {
	ctx, next := inOrder(t)
	m := newMember(t, ctx, next, "gateway", tokens("1"), nil)
	sum(m.handler, maxChecks-1)
	require.True(t, checks(m))
	get(m.handler)
	require.False(t, checks(m))
}

func TestNesting_anInnerInstanceReachedLateCountsOneRequestTwice(t *testing.T) {
	ctx, next := inOrder(t)
	inner := newMember(t, ctx, next, "gateway", tokens("1000"), nil)
	rarely := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "PUT" {
			inner.handler.ServeHTTP(w, r)
		}
	})
	outer := newMember(t, ctx, rarely, "gateway", tokens("1000"), nil)
	rest(t, outer)

	for i := 0; i < 100; i++ {
		require.Equal(t, 200, send(outer.handler, "PUT", "/").Code)
	}
	require.Equal(t, 1000-maxChecks-100-1, left(outer.handler))
	require.True(t, checks(outer))
	require.True(t, checks(inner))
}

func TestNesting_anOuterInstanceThatComesLateIsSeenAtOnce(t *testing.T) {
	ctx, next := inOrder(t)
	inner := newMember(t, ctx, next, "gateway", tokens("1000"), nil)
	other := newMember(t, ctx, next, "other", tokens("1000"), nil)
	outer := newMember(t, ctx, inner.handler, "gateway", tokens("1000"), nil)
	rest(t, inner)
	rest(t, other)

	require.Equal(t, 200, get(outer.handler))
	require.True(t, checks(other), "it may be inside as well")
	require.Equal(t, 1000-maxChecks-1, left(outer.handler))
	require.True(t, checks(outer))
	require.True(t, checks(inner))
	require.Equal(t, 200, get(other.handler))
	require.Equal(t, 1000-maxChecks-1, left(other.handler))
	require.False(t, checks(other), "but it is not")
}

func TestNesting_instancesOfAnotherConfigurationAreNotWoken(t *testing.T) {
	ctx, next := inOrder(t)
	old := newMember(t, ctx, next, "gateway", tokens("1000"), nil)
	rest(t, old)
	later, cancel := context.WithCancel(context.Background())
	defer cancel()
	get(newMember(t, later, next, "gateway", tokens("1000"), nil).handler)
	require.False(t, checks(old))
}

// A limiter inside of a limiter of another scope, or of a breaker's limiter: nothing is to be told between them.
func TestNesting_instancesThatDoNotConcernEachOtherDoNotCheck(t *testing.T) {
	ctx, next := inOrder(t)
	inner := newMember(t, ctx, next, "inner", tokens("5000"), failures("5"))
	outer := newMember(t, ctx, inner.handler, "outer", tokens("5000"), nil)
	for i := 0; i < 2*maxChecks; i++ {
		require.Equal(t, 200, get(outer.handler))
	}
	require.False(t, checks(inner))
	require.False(t, checks(outer))
}

// The front of an open circuit refuses without a look at the request: not where the refusal is to be told.
func TestNesting_anOpenCircuitIsWokenToo(t *testing.T) {
	defer func(was bool) { switchEnabled = was }(switchEnabled)
	switchEnabled = true
	ctx, _ := inOrder(t)
	answer := 200
	inner := newMember(t, ctx, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(answer) }), "inner", nil, failures("1"))
	rest(t, inner)
	outer := newMember(t, ctx, inner.handler, "outer", nil, failures("3"))
	answer = 500
	require.Equal(t, 500, get(inner.handler))
	for i := 0; i < 10; i++ {
		require.Equal(t, 503, get(inner.handler))
	}
	for i := 0; i < 10; i++ {
		require.Equal(t, 503, get(outer.handler))
	}
	retryAfter, refuses := outer.breaker.MustRefuse(false, outer.now())
	require.False(t, refuses, retryAfter)
}

func TestNesting_isWarnedOfOnce(t *testing.T) {
	newProcess(t, time.Hour)
	log := record(t)
	const warning = "come through this middleware twice"
	for i := 0; i < 2; i++ { // a reload
		ctx, cancel := context.WithCancel(context.Background())
		inner := newMember(t, ctx, status(200), "gateway", tokens("1000"), nil)
		middle := newMember(t, ctx, inner.handler, "other", tokens("1000"), failures("5"))
		outer := newMember(t, ctx, middle.handler, "gateway", tokens("1000"), nil)
		for j := 0; j < 5; j++ {
			require.Equal(t, 200, get(outer.handler))
		}
		cancel()
	}
	log.eventually(t, 1, warning)
	log.eventually(t, 1, `"inner":"gateway@file"`)
	time.Sleep(20 * time.Millisecond)
	require.Equal(t, 1, log.count(warning))
}

func TestNesting_manyAtOnce(t *testing.T) {
	newProcess(t, 0)
	place := place{"in this process", nil}
	one := named(t.Name(), place, tokens("450"), failures("5"))
	handler, up := nested(t, nil, one, named(t.Name()+"-between", place, tokens("100000"), failures("5")), one)
	passed := int64(0)
	var done sync.WaitGroup
	for i := 0; i < 10; i++ {
		done.Add(1)
		go func() {
			defer done.Done()
			for j := 0; j < 60; j++ {
				if get(handler) == 200 {
					atomic.AddInt64(&passed, 1)
				}
			}
		}()
	}
	done.Wait()
	require.Equal(t, int64(450), passed)
	require.Equal(t, 450, up.count())
}

// The page of the errors middleware is asked for in the client's name, but is no attempt to answer the client's request.
func TestNesting_aPageDecidesNothing(t *testing.T) {
	for _, row := range []struct {
		name    string
		service int
		counts  bool
	}{{"a failure of the service", 500, true}, {"a refusal", 0, false}} {
		ctx, _ := inOrder(t)
		inner := newMember(t, ctx, status(row.service), "inner", tokens("1000"), failures("1000"))
		if row.service == 0 {
			inner = newMember(t, ctx, status(500), "inner-open", nil, failures("1"))
			require.Equal(t, 500, get(inner.handler))
		}
		ofPage := newMember(t, ctx, status(200), "page", tokens("1"), nil)
		outer := newMember(t, ctx, pages(ofPage.handler)(inner.handler), "outer", nil, failures("3"))
		for i := 0; i < 3; i++ { // the first page passes, the others are refused
			require.GreaterOrEqual(t, get(outer.handler), 500, row.name)
		}
		_, refuses := outer.breaker.MustRefuse(false, outer.now())
		require.Equal(t, row.counts, refuses, row.name)
	}
}
