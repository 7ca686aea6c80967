package resilience

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// pages asks for a page instead of each answer that is a failure, as Traefik's errors middleware does: with a request of its own.
func errorPages(page http.Handler) func(http.Handler) http.Handler {
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
func retries(next http.Handler) http.Handler {
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

// refusals are middlewares that refuse all requests, for each reason that there is.
func refusals(t *testing.T, place place, up *upstream) []refusal {
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	service := http.HandlerFunc(up.ServeHTTP)
	open := nestBefore(t, ctx, service, nil, named(nameOf(t)+"-open", place, nil, failures("1")))
	up.will(status(500))
	require.Equal(t, 500, get(open))
	up.will(nil)
	limited := nestBefore(t, ctx, service, nil, named(nameOf(t)+"-limited", place, tokens("1"), failures("1")))
	require.Equal(t, 200, get(limited))
	away := &RedisConfig{Address: closedPort, OnError: "deny"}
	denies := nestBefore(t, ctx, service, nil, &Config{Name: redact(nameOf(t) + "-denies"), Redis: away, RateLimit: tokens("100")})
	deniesToo := nestBefore(t, ctx, service, nil, &Config{Name: redact(nameOf(t) + "-denies-too"), Redis: away, CircuitBreaker: failures("1")})
	return []refusal{
		{"an open circuit", open}, {"an empty bucket", limited}, {"deny of a limiter", denies}, {"deny of a breaker", deniesToo},
	}
}

type refusal struct {
	name    string
	handler http.Handler
}

// past lets requests to /past go past the middlewares inside.
func bypass(inside http.Handler, up *upstream) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/past" {
			up.ServeHTTP(w, r)
		} else {
			inside.ServeHTTP(w, r)
		}
	})
}

// eachRefusal runs a step for each reason to refuse inside, and for what may be between, with requests to an outer breaker.
func forEachRefusal(t *testing.T, circuit *CircuitBreakerConfig, betweens []between, step func(name string, up *upstream, ask func(path string) int)) {
	for _, place := range places(t) {
		newProcess(t, 0)
		up := &upstream{}
		for _, refusal := range refusals(t, place, up) {
			for _, between := range betweens {
				for _, asking := range writers() {
					asking := asking
					name := refusal.name + ", " + between.name + ", " + asking.name + ", " + place.name
					ctx, cancel := context.WithCancel(context.Background())
					inside := bypass(between.put(refusal.handler), up)
					outer := nestBefore(t, ctx, inside, nil, named(t.Name()+name, place, nil, circuit))
					step(name, up, func(path string) int { return asking.get(outer, path) })
					cancel()
				}
			}
		}
	}
}

func TestNesting_innerRefusalIsNotCounted(t *testing.T) {
	forEachRefusal(t, failures("2"), middlewaresBetween(), func(name string, up *upstream, ask func(path string) int) {
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

func TestNesting_probeRefusedInsideReturnsItsPlace(t *testing.T) {
	forEachRefusal(t, shortReset("1"), middlewaresBetween()[1:2], func(name string, up *upstream, ask func(path string) int) {
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
func TestNesting_successOfAFailoverCounts(t *testing.T) {
	for _, asking := range writers() {
		ctx, _ := newChain(t)
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
		}), "outer", nil, shortReset("1"))
		require.Equal(t, 500, asking.get(outer.handler, "/"))
		answer = 200
		time.Sleep(60 * time.Millisecond)
		for i := 0; i < 5; i++ {
			require.Equal(t, 200, asking.get(outer.handler, "/"), asking.name)
		}
		require.Equal(t, 503, get(inner.handler))
	}
}

func TestNesting_lastAttemptCounts(t *testing.T) {
	for _, place := range places(t) {
		for _, asking := range writers() {
			asking, place := asking, place
			t.Run(asking.name+", "+place.name, func(t *testing.T) {
				newProcess(t, 0)
				later := func(next http.Handler) http.Handler {
					first := true
					return retries(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if !first {
							time.Sleep(80 * time.Millisecond)
						}
						first = !first
						next.ServeHTTP(w, r)
					}))
				}
				inner, outer := named(nameOf(t)+"-inner", place, nil, shortReset("1")), named(nameOf(t)+"-outer", place, nil, failures("2"))
				handler, up := nest(t, later, outer, inner)
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
func TestNesting_lastAttemptCountsWithinOneName(t *testing.T) {
	for _, asking := range writers() {
		ctx, _ := newChain(t)
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

// The page of the errors middleware is asked for in the client's name, but is no attempt to answer the client's request.
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
		_, refuses := outer.breaker.MustRefuse(false, sinceStart(time.Now()))
		require.Equal(t, row.counts, refuses, row.name)
	}
}
