package resilience

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// Traefik's middlewares may stand between two instances. What one of them does with an inner refusal must not confuse the outer one.

// errorPages answers each failure with a page, for which it makes another request, as Traefik's errors middleware does.
func errorPages(page http.Handler) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return onFailure(next, func(w http.ResponseWriter, r *http.Request, code int) {
			ask := httptest.NewRequest("GET", "/page", nil).WithContext(r.Context())
			ask.RemoteAddr = ""
			w.WriteHeader(code)
			page.ServeHTTP(httptest.NewRecorder(), ask)
			io.WriteString(w, "sorry")
		})
	}
}

// retries repeats a request once after a failure, as Traefik's retry middleware does.
func retries(next http.Handler) http.Handler {
	return onFailure(next, func(w http.ResponseWriter, r *http.Request, code int) {
		next.ServeHTTP(w, r.Clone(r.Context()))
	})
}

// onFailure delivers the next handler's answer, or, if that is a failure, calls fallback instead.
func onFailure(next http.Handler, fallback func(w http.ResponseWriter, r *http.Request, code int)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := httptest.NewRecorder()
		next.ServeHTTP(answer, r)
		if answer.Code < 500 {
			deliver(w, answer)
			return
		}
		fallback(w, r, answer.Code)
	})
}

func deliver(w http.ResponseWriter, answer *httptest.ResponseRecorder) {
	w.WriteHeader(answer.Code)
	w.Write(answer.Body.Bytes())
}

// rewrites replaces each error by 502 without headers and body.
func rewrites(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := httptest.NewRecorder()
		next.ServeHTTP(answer, r)
		if answer.Code >= 400 {
			w.WriteHeader(502)
			return
		}
		deliver(w, answer)
	})
}

// readdresses replaces the client's address.
func readdresses(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.RemoteAddr = "192.0.2.1:4711" // has the same bucket
		next.ServeHTTP(w, r)
	})
}

func middlewaresBetween() []between {
	return []between{
		{"nothing", func(next http.Handler) http.Handler { return next }},
		{"pages", errorPages(status(200))},
		{"pages that fail", errorPages(status(500))},
		{"tries", retries},
		{"rewrites", rewrites},
		{"another address", readdresses},
	}
}

type between struct {
	name string
	put  func(http.Handler) http.Handler
}

// refusals are instances that refuse all requests, one for each reason.
func refusals(t *testing.T, redis *RedisConfig, up *upstream) []refusal {
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	service := http.HandlerFunc(up.ServeHTTP)
	open := nestBefore(t, ctx, service, nil, named(nameOf(t)+"-open", redis, nil, failures("1")))
	up.will(status(500))
	require.Equal(t, 500, get(open))
	up.will(nil)
	limited := nestBefore(t, ctx, service, nil, named(nameOf(t)+"-limited", redis, tokens("1"), failures("1")))
	require.Equal(t, 200, get(limited))
	unavailable := &RedisConfig{Address: closedPort, OnError: "deny"}
	limiterDenies := nestBefore(t, ctx, service, nil, named(nameOf(t)+"-limiter-denies", unavailable, tokens("100"), nil))
	breakerDenies := nestBefore(t, ctx, service, nil, named(nameOf(t)+"-breaker-denies", unavailable, nil, failures("1")))
	return []refusal{
		{"an open circuit", open}, {"an empty bucket", limited}, {"deny of a limiter", limiterDenies}, {"deny of a breaker", breakerDenies},
	}
}

type refusal struct {
	name    string
	handler http.Handler
}

// bypass sends requests for /past to the upstream directly.
func bypass(inside http.Handler, up *upstream) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/past" {
			up.ServeHTTP(w, r)
		} else {
			inside.ServeHTTP(w, r)
		}
	})
}

// forEachRefusal runs steps with requests to an outer breaker, for each reason of an inner instance to refuse and for each middleware
// between the two.
func forEachRefusal(t *testing.T, circuit *CircuitBreakerConfig, betweens []between,
	steps func(t *testing.T, redis *RedisConfig, up *upstream, ask func(path string) int)) {
	forEachWriter(t, func(t *testing.T, redis *RedisConfig, get func(handler http.Handler, path string) int) {
		up := &upstream{}
		for _, refusal := range refusals(t, redis, up) {
			for _, between := range betweens {
				inside := bypass(between.put(refusal.handler), up)
				t.Run(refusal.name+", "+between.name, func(t *testing.T) {
					ctx, cancel := context.WithCancel(context.Background())
					defer cancel()
					outer := nestBefore(t, ctx, inside, nil, named(nameOf(t), redis, nil, circuit))
					steps(t, redis, up, func(path string) int { return get(outer, path) })
				})
			}
		}
	})
}

func TestNesting_innerRefusalIsNotCounted(t *testing.T) {
	forEachRefusal(t, failures("2"), middlewaresBetween(), func(t *testing.T, redis *RedisConfig, up *upstream, ask func(path string) int) {
		before := up.count()
		for i := 0; i < 5; i++ {
			require.GreaterOrEqual(t, ask("/"), 429)
		}
		require.Equal(t, before, up.count())
		require.Equal(t, 200, ask("/past"), "closed")

		up.will(status(500))
		require.Equal(t, 500, ask("/past"))
		require.GreaterOrEqual(t, ask("/"), 429)
		require.Equal(t, 500, ask("/past"))
		up.will(nil)
		require.Equal(t, 503, ask("/past"), "the two failures are in a row")
	})
}

func TestNesting_probeRefusedInsideReturnsItsPlace(t *testing.T) {
	forEachRefusal(t, oneProbe("1"), middlewaresBetween()[1:2], func(t *testing.T, redis *RedisConfig, up *upstream, ask func(path string) int) {
		up.will(status(500))
		require.Equal(t, 500, ask("/past"))
		up.will(nil)
		elapse(t, redis, time.Minute)
		before := up.count()
		require.GreaterOrEqual(t, ask("/"), 429)
		require.Equal(t, before, up.count())
		require.Equal(t, 200, ask("/past"), "half-open")
	})
}

// A failover asks another service when an instance in front of the first one refuses.
func TestNesting_successOfAFailoverCounts(t *testing.T) {
	for _, writer := range writers() {
		ctx, _ := newChain(t)
		answer := 500
		other := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(answer) })
		inner := newMember(t, ctx, other, "inner", nil, failures("1"))
		outer := newMember(t, ctx, onFailure(inner.handler, func(w http.ResponseWriter, r *http.Request, code int) { other.ServeHTTP(w, r) }), "outer", nil, oneProbe("1"))
		require.Equal(t, 500, writer.get(outer.handler, "/"))
		answer = 200
		elapse(t, nil, time.Minute)
		for i := 0; i < 5; i++ {
			require.Equal(t, 200, writer.get(outer.handler, "/"), writer.name)
		}
		require.Equal(t, 503, get(inner.handler))
	}
}

func TestNesting_lastAttemptCounts(t *testing.T) {
	setSwitch(t, false) // a timer ends the notice of an open circuit: the advanced clock does not
	forEachWriter(t, func(t *testing.T, redis *RedisConfig, get func(handler http.Handler, path string) int) {
		later := func(next http.Handler) http.Handler {
			first := true
			return retries(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !first {
					elapse(t, redis, time.Minute)
				}
				first = !first
				next.ServeHTTP(w, r)
			}))
		}
		inner, outer := named(nameOf(t)+"-inner", redis, nil, oneProbe("1")), named(nameOf(t)+"-outer", redis, nil, failures("2"))
		handler, up := nest(t, later, outer, inner)
		up.will(status(500))
		require.Equal(t, 500, get(handler, "/"))
		require.Equal(t, 2, up.count())
		require.Equal(t, 500, get(handler, "/"))
		require.Equal(t, 3, up.count(), "the first attempt was refused")
		requireAnswer(t, send(handler, "GET", "/"), 503, openBody, 3600)
	})
}

// The last attempt goes to an inner instance of the same name, which lets the request pass.
func TestNesting_lastAttemptCountsWithinOneName(t *testing.T) {
	for _, writer := range writers() {
		ctx, _ := newChain(t)
		refusing := newMember(t, ctx, status(500), "refusing", nil, failures("1"))
		require.Equal(t, 500, get(refusing.handler))
		inner := newMember(t, ctx, status(500), "gateway", nil, failures("20"))
		outer := newMember(t, ctx, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			refusing.handler.ServeHTTP(httptest.NewRecorder(), r)
			inner.handler.ServeHTTP(w, r)
		}), "gateway", nil, failures("20"))
		for i := 0; i < 20; i++ {
			require.Equal(t, 500, writer.get(outer.handler, "/"), writer.name)
		}
		require.Equal(t, 503, writer.get(outer.handler, "/"), writer.name)
	}
}

// The errors middleware requests its page with the client's context, but that request is no attempt to answer the client's.
func TestNesting_errorPageIsNotCounted(t *testing.T) {
	for _, row := range []struct {
		name    string
		service int
		counts  bool
	}{{"a failure of the service", 500, true}, {"a refusal", 0, false}} {
		ctx, _ := newChain(t)
		inner := newMember(t, ctx, status(row.service), "inner", tokens("1000"), failures("1000"))
		if row.service == 0 {
			inner = newMember(t, ctx, status(500), "inner-open", nil, failures("1"))
			require.Equal(t, 500, get(inner.handler))
		}
		ofPage := newMember(t, ctx, status(200), "page", tokens("1"), nil)
		outer := newMember(t, ctx, errorPages(ofPage.handler)(inner.handler), "outer", nil, failures("3"))
		for i := 0; i < 3; i++ { // the first page passes, the others are refused
			require.GreaterOrEqual(t, get(outer.handler), 500, row.name)
		}
		_, refuses := outer.breaker.MustRefuse(false, outer.now())
		require.Equal(t, row.counts, refuses, row.name)
	}
}

// A part that is made late counts what it does itself, and nothing that its instance has counted.
func TestNesting_aLatePartCountsFromZero(t *testing.T) {
	newProcess(t, 0)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	redis := at(redistest.Start(t).Addr())
	add := func(name string, next http.Handler) *Middleware {
		m, err := newMiddleware(ctx, next, &Config{Name: name, Redis: redis, RateLimit: tokens("100"), CircuitBreaker: failures("5")}, name+"@file")
		require.NoError(t, err)
		return m
	}
	inner := add("shop", status(200))
	admin := console(t)
	finishChecks(t, inner)
	const clients = 20 // each is unknown at first: its token comes from Redis
	for i := 0; i < clients; i++ {
		require.Equal(t, 200, getAs(inner.handler, "192.0.2."+strconv.Itoa(100+i)))
	}
	outer := add("door", inner.handler)
	require.Equal(t, 200, getAs(outer.handler, otherClient))
	require.Equal(t, map[string]int{"admitted": maxChecks + clients + 1}, decided(scrape(t, admin), "shop"))
}
