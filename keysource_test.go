package resilience

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/resilient-gateway/resilience/identity"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// sourceStep is a request and the status of its answer.
type sourceStep struct {
	method, target string
	headers        []string // "Name: value"
	want           int
}

func (s *sourceStep) request() *http.Request {
	r := httptest.NewRequest(s.method, s.target, nil)
	for _, header := range s.headers {
		name, value, _ := strings.Cut(header, ": ")
		r.Header.Add(name, value)
	}
	return r
}

// sourceRow is a sourceCriterion, the requests that come, and the keys of the buckets that hold fewer tokens after them.
type sourceRow struct {
	name   string
	source SourceCriterionConfig
	steps  []sourceStep
	keys   []string // after bucket:, where Redis has them
}

const (
	aliceToken = "Authorization: Bearer e30.eyJzdWIiOiJhbGljZSIsInJlYWxtIjp7InRlbmFudCI6ImFjbWUifX0.c2ln" // {"sub":"alice","realm":{"tenant":"acme"}}
	bobToken   = "Authorization: Bearer e30.eyJzdWIiOiJib2IiLCJyZWFsbSI6eyJ0ZW5hbnQiOiJhY21lIn19.c2ln"    // {"sub":"bob","realm":{"tenant":"acme"}}
)

// Each bucket holds one token.
func sourceRows() []sourceRow {
	key := func(kind, text string) string { return kind + ":" + identity.Hash(text) }
	return []sourceRow{
		{"a cookie", SourceCriterionConfig{RequestCookieName: "session"}, []sourceStep{
			{"GET", "/", []string{"Cookie: session=a"}, 200},
			{"GET", "/other", []string{"Cookie: theme=dark; session=a"}, 429},
			{"GET", "/", []string{`Cookie: session="%61"`}, 429},
			{"GET", "/", []string{"Cookie: session=b"}, 200},
			{"GET", "/", []string{"Cookie: session=b; session=c"}, 200}, // which one counts is not known: none
			{"GET", "/", []string{"Cookie: session=d; session=e"}, 429},
			{"GET", "/", nil, 429},
		}, []string{key("cookie", "session=a"), key("cookie", "session=b"), "none:"}},
		{"a query parameter", SourceCriterionConfig{RequestQueryName: "tenant"}, []sourceStep{
			{"GET", "/?tenant=a", nil, 200},
			{"GET", "/x?y=1&tenant=%61", nil, 429},
			{"GET", "/?tenant=b", nil, 200},
			{"GET", "/?tenant=a&tenant=b", nil, 200},
			{"GET", "/", nil, 429},
		}, []string{key("query", "tenant=a"), key("query", "tenant=b"), "none:"}},
		{"a method", SourceCriterionConfig{RequestMethod: "true"}, []sourceStep{
			{"GET", "/", nil, 200},
			{"POST", "/", nil, 200},
			{"GET", "/", nil, 429},
			{"BREW", "/", nil, 200},
			{"STEEP", "/", nil, 429},
		}, []string{"method:GET", "method:POST", "method:other"}},
		{"a path", SourceCriterionConfig{RequestPath: "/api/{tenant}/*"}, []sourceStep{
			{"GET", "/api/acme/orders", nil, 200},
			{"GET", "/api/acme/invoices/7", nil, 429},
			{"GET", "/api/ac%6de", nil, 429},
			{"GET", "/api/acme;v=2/orders", nil, 429},
			{"GET", "/api/other/orders", nil, 200},
			{"GET", "/login", nil, 200},
			{"GET", "/api//orders", nil, 429},
		}, []string{key("path", "/api/{tenant}/*=acme"), key("path", "/api/{tenant}/*=other"), "none:"}},
		{"a claim", SourceCriterionConfig{RequestJWTClaim: "sub"}, []sourceStep{
			{"GET", "/", []string{aliceToken}, 200},
			{"GET", "/", []string{bobToken}, 200},
			{"GET", "/", []string{aliceToken}, 429},
			{"GET", "/", nil, 200},
			{"GET", "/", []string{"Authorization: Bearer nonsense"}, 429},
			{"GET", "/", []string{aliceToken, bobToken}, 429},
		}, []string{key("claim", "sub=alice"), key("claim", "sub=bob"), "none:"}},
		{"a claim within another", SourceCriterionConfig{RequestJWTClaim: "realm.tenant"}, []sourceStep{
			{"GET", "/", []string{aliceToken}, 200},
			{"GET", "/", []string{bobToken}, 429},
		}, []string{key("claim", "realm.tenant=acme")}},
		{"all", SourceCriterionConfig{All: "true"}, []sourceStep{
			{"GET", "/a", []string{"X-A: 1"}, 200},
			{"POST", "/b", nil, 429},
		}, []string{"all:"}},
		{"two headers", SourceCriterionConfig{RequestHeaderName: "X-Tenant, X-User"}, []sourceStep{
			{"GET", "/", []string{"X-Tenant: a", "X-User: bc"}, 200},
			{"GET", "/", []string{"X-Tenant: ab", "X-User: c"}, 200},
			{"GET", "/", []string{"X-Tenant: a", "X-User: bc"}, 429},
			{"GET", "/", []string{"X-Tenant: a"}, 200}, // lacks one, and so all
			{"GET", "/", []string{"X-User: bc"}, 429},
		}, []string{key("header-header", "x-tenant,x-user=a\x00bc"), key("header-header", "x-tenant,x-user=ab\x00c"), "none:"}},
		{"an address, a method and a path", SourceCriterionConfig{IPStrategy: &IPStrategyConfig{}, RequestMethod: "true", RequestPath: "/{part}/*"}, []sourceStep{
			{"GET", "/a", nil, 200},
			{"GET", "/b", nil, 200},
			{"POST", "/a", nil, 200},
			{"POST", "/a/c", nil, 429},
		}, []string{key("ip-method-path", "ip,method,/{part}/*=192.0.2.1\x00GET\x00a"), key("ip-method-path", "ip,method,/{part}/*=192.0.2.1\x00GET\x00b"),
			key("ip-method-path", "ip,method,/{part}/*=192.0.2.1\x00POST\x00a")}},
		{"no header: one bucket for all that lack it", SourceCriterionConfig{RequestHeaderName: "X-Key", MissingSource: "shared"}, []sourceStep{
			{"GET", "/", nil, 200},
			{"GET", "/", []string{"X-Key: "}, 429},
			{"GET", "/", []string{"X-Key: a"}, 200},
		}, []string{"header:a", "none:"}},
		{"no header: the client's address", SourceCriterionConfig{RequestHeaderName: "X-Key", MissingSource: "address"}, []sourceStep{
			{"GET", "/", nil, 200},
			{"GET", "/", nil, 429},
			{"GET", "/", []string{"X-Key: 192.0.2.1"}, 200}, // another kind
			{"GET", "/", []string{"X-Key: 192.0.2.1"}, 429},
		}, []string{"address:192.0.2.1", "header:192.0.2.1"}},
		{"no header: no limit", SourceCriterionConfig{RequestHeaderName: "X-Key", MissingSource: "pass"}, []sourceStep{
			{"GET", "/", nil, 200},
			{"GET", "/", nil, 200},
			{"GET", "/", []string{"X-Key: a"}, 200},
			{"GET", "/", []string{"X-Key: a"}, 429},
			{"GET", "/", []string{"X-Key: "}, 200},
		}, []string{"header:a"}},
		{"no header: a refusal", SourceCriterionConfig{RequestHeaderName: "X-Key", MissingSource: "deny"}, []sourceStep{
			{"GET", "/", nil, 403},
			{"GET", "/", []string{"X-Key: a"}, 200},
			{"GET", "/", []string{"X-Key: a"}, 429},
			{"GET", "/", []string{"X-Key: "}, 403},
		}, []string{"header:a"}},
		{"no cookie: a refusal", SourceCriterionConfig{RequestCookieName: "session", MissingSource: "deny"}, []sourceStep{
			{"GET", "/", nil, 403},
			{"GET", "/", []string{"Cookie: session=a; session=b"}, 403},
			{"GET", "/", []string{"Cookie: session=a"}, 200},
		}, []string{key("cookie", "session=a")}},
	}
}

// Each source, with and without a breaker, and with each kind of refusal: as configured by default, and with headers.
func TestSource_steps(t *testing.T) {
	redis := redistest.Start(t)
	for _, row := range sourceRows() {
		for _, headers := range []string{"none", "always", "refused"} {
			for _, breaks := range []string{"", " and a breaker"} {
				row, headers, breaks := row, headers, breaks
				t.Run(row.name+breaks+", headers "+headers, func(t *testing.T) {
					newProcess(t, 0)
					limit := tokens("1")
					limit.SourceCriterion = &row.source
					if headers != "none" {
						limit.ResponseHeaders, limit.ResponseHeadersOn = "both", headers
					}
					config := &Config{Redis: at(redis.Addr()), RateLimit: limit}
					if breaks != "" {
						config.CircuitBreaker = failures("5")
					}
					handler, up := newGateway(t, config)
					requireSteps(t, handler, up, row.steps)

					prefix := "resilience:{" + nameOf(t) + "}:bucket:"
					for _, key := range row.keys {
						require.Equal(t, int64(1), redis.Int("EXISTS", prefix+key), key)
					}
					keys := redis.Do("KEYS", prefix+"*").([]interface{})
					require.Len(t, keys, len(row.keys))
				})
			}
		}
	}
}

func requireSteps(t *testing.T, handler http.Handler, up *upstream, steps []sourceStep) {
	passed := 0
	for i, step := range steps {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, step.request())
		require.Equal(t, step.want, w.Code, "step %d: %+v", i, step)
		if step.want == http.StatusOK {
			passed++
		}
		if step.want == http.StatusForbidden {
			requireDenied(t, w)
		}
	}
	require.Equal(t, passed, up.count())
}

// requireDenied requires the answer to a request that a rule denies.
func requireDenied(t *testing.T, w *httptest.ResponseRecorder) {
	require.Equal(t, http.StatusForbidden, w.Code)
	require.Equal(t, `{"error":"Forbidden."}`, w.Body.String())
	require.Equal(t, http.Header{"Content-Type": {"application/json"}, "Content-Length": {"22"}}, w.Header())
}

// While the circuit is open, a request without the source is refused as any other, whatever missingSource says.
func TestSource_missingAndTheCircuit(t *testing.T) {
	for _, row := range []struct {
		missing        string
		before, behind int // the status before the circuit is open, and while it is
	}{
		{"shared", 500, 503}, {"address", 500, 503}, {"pass", 500, 503}, {"deny", 403, 503},
	} {
		row := row
		t.Run(row.missing, func(t *testing.T) {
			newProcess(t, 0)
			limit := tokens("100")
			limit.SourceCriterion = &SourceCriterionConfig{RequestHeaderName: "X-Key", MissingSource: row.missing}
			handler, up := newGateway(t, &Config{RateLimit: limit, CircuitBreaker: failures("1")})
			up.will(status(500))
			require.Equal(t, row.before, get(handler))
			fails := sourceStep{"GET", "/", []string{"X-Key: a"}, 0}
			handler.ServeHTTP(httptest.NewRecorder(), fails.request())
			require.Equal(t, row.behind, get(handler))
		})
	}
}

// A request that is denied takes no place among the probes.
func TestSource_deniedTakesNoProbe(t *testing.T) {
	newProcess(t, 0)
	limit := tokens("100")
	limit.SourceCriterion = &SourceCriterionConfig{RequestHeaderName: "X-Key", MissingSource: "deny"}
	circuit := &CircuitBreakerConfig{FailureThreshold: "1", ResetTimeout: "10s", HalfOpenSuccessThreshold: "1", HalfOpenMaxProbes: "1"}
	clock := newStoppedClock(t)
	handler, up := newGateway(t, &Config{RateLimit: limit, CircuitBreaker: circuit})
	keyed := sourceStep{"GET", "/", []string{"X-Key: a"}, 0}
	ask := func() int {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, keyed.request())
		return w.Code
	}
	up.will(status(500))
	require.Equal(t, 500, ask())
	require.Equal(t, 503, ask())
	up.will(nil)
	clock.advance(11e9)
	for i := 0; i < 3; i++ {
		require.Equal(t, 403, get(handler))
	}
	require.Equal(t, 200, ask(), "the place is free")
	require.Equal(t, 200, ask(), "and the circuit closed")
}

// The log names no value that a client sent.
func TestSource_logHidesWhatAClientSent(t *testing.T) {
	for _, row := range []struct {
		source SourceCriterionConfig
		header string
	}{
		{SourceCriterionConfig{RequestCookieName: "session"}, "Cookie: session=tellnobody"},
		{SourceCriterionConfig{RequestHeaderName: "X-Key", RequestMethod: "true"}, "X-Key: tellnobody"},
		{SourceCriterionConfig{RequestHeaderName: "X-Key", MissingSource: "deny"}, "X-Key: tellnobody"},
	} {
		newProcess(t, 0)
		log := captureLog(t)
		limit := tokens("1")
		limit.SourceCriterion = &row.source
		handler, _ := newGateway(t, &Config{RateLimit: limit})
		step := sourceStep{"GET", "/", []string{row.header}, 0}
		for i := 0; i < 3; i++ {
			handler.ServeHTTP(httptest.NewRecorder(), step.request())
		}
		log.eventually(t, 1, "refused: rate limit exceeded")
		require.Equal(t, 0, log.count("tellnobody"))
		require.Equal(t, 1, log.count("sha256:"), "%+v", row.source)
	}
}
