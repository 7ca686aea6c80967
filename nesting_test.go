package resilience

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/identity"
	"github.com/resilient-gateway/resilience/internal/statuswriter"
	"github.com/stretchr/testify/require"
)

// Several instances on the way of one request: it takes one token and counts once.

// nest returns a chain of middlewares, the outermost first, in front of a new upstream. It makes the innermost one first, as Traefik does.
func nest(t *testing.T, between func(http.Handler) http.Handler, configs ...*Config) (http.Handler, *upstream) {
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	up := &upstream{}
	return nestBefore(t, ctx, http.HandlerFunc(up.ServeHTTP), between, configs...), up
}

// nestBefore is nest in front of any handler.
func nestBefore(t *testing.T, ctx context.Context, next http.Handler, between func(http.Handler) http.Handler, configs ...*Config) http.Handler {
	for n := len(configs) - 1; n >= 0; n-- {
		next = newHandler(t, ctx, next, configs[n])
		if n > 0 && between != nil {
			next = between(next)
		}
	}
	return next
}

// countStatuses sends requests and returns how many answers had each status.
func countStatuses(handler http.Handler, requests int) map[int]int {
	counts := map[int]int{}
	for _, code := range statuses(handler, requests) {
		counts[code]++
	}
	return counts
}

// writers are one ResponseWriter for each way to learn a status: by its method, and by a recorder.
func writers() []writerKind {
	return []writerKind{
		{"a writer with Status", func(handler http.Handler, path string) int {
			w := statuswriter.New()
			handler.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
			return w.Code
		}},
		{"a recorder", func(handler http.Handler, path string) int { return send(handler, "GET", path).Code }},
	}
}

type writerKind struct {
	name string
	get  func(handler http.Handler, path string) int
}

// forEachWriter runs a test in each store with each kind of writer.
func forEachWriter(t *testing.T, test func(t *testing.T, redis *RedisConfig, get func(handler http.Handler, path string) int)) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		for _, writer := range writers() {
			writer := writer
			t.Run(writer.name, func(t *testing.T) { test(t, redis, writer.get) })
		}
	})
}

// named is a configuration with a name.
func named(name string, redis *RedisConfig, limit *RateLimitConfig, circuit *CircuitBreakerConfig) *Config {
	return &Config{Name: identity.Hash(name), Redis: redis, RateLimit: limit, CircuitBreaker: circuit}
}

// byClient gives each value of X-Client a bucket.
func byClient(limit *RateLimitConfig) *RateLimitConfig {
	limit.SourceCriterion = &SourceCriterionConfig{RequestHeaderName: "X-Client"}
	return limit
}

// dryRun makes a limit refuse nothing.
func dryRun(limit *RateLimitConfig) *RateLimitConfig {
	limit.DryRun = "true"
	return limit
}

// oneProbe is a breaker whose circuit is open for a minute, then lets one probe at a time pass, and closes after one success.
func oneProbe(threshold string) *CircuitBreakerConfig {
	return &CircuitBreakerConfig{
		FailureThreshold: threshold, ResetTimeout: "1m", HalfOpenSuccessThreshold: "1", HalfOpenMaxProbes: "1",
	}
}

// link is one instance of a chain.
type link struct {
	suffix  string // of its name
	limit   *RateLimitConfig
	circuit *CircuitBreakerConfig
}

func TestNesting_requestTakesOneToken(t *testing.T) {
	rows := []struct {
		name   string
		chain  []link // the outermost first
		passed int    // of 20
	}{
		{"the same twice", []link{{"", tokens("10"), nil}, {"", tokens("10"), nil}}, 10},
		{"the same three times", []link{{"", tokens("10"), nil}, {"", tokens("10"), nil}, {"", tokens("10"), nil}}, 10},
		{"with a breaker", []link{{"", tokens("10"), failures("5")}, {"", tokens("10"), failures("5")}}, 10},
		{"another name between", []link{{"", tokens("10"), nil}, {"-other", tokens("15"), failures("5")}, {"", tokens("10"), nil}}, 10},
		{"another name inside", []link{{"", tokens("10"), nil}, {"", tokens("10"), nil}, {"-other", tokens("7"), nil}}, 7},
		{"the outer one has a breaker only", []link{{"", nil, failures("5")}, {"", tokens("10"), failures("5")}}, 10},
		{"the inner one has other buckets", []link{{"", tokens("10"), nil}, {"", byClient(tokens("6")), nil}}, 6},
		{"the inner one has another limit for the same buckets: each takes", []link{{"", tokens("1000"), nil}, {"", tokens("6"), nil}}, 3},
		{"two names", []link{{"", tokens("10"), nil}, {"-other", tokens("6"), nil}}, 6},
		{"several limits twice", []link{{"", planLimit("10", "15", "9"), nil}, {"", planLimit("10", "15", "9"), nil}}, 9},
		{"several limits three times, with a breaker", []link{{"", planLimit("10", "8", "90"), failures("5")},
			{"", planLimit("10", "8", "90"), failures("5")}, {"", planLimit("10", "8", "90"), failures("5")}}, 8},
		{"several limits, another name between", []link{{"", planLimit("10", "11", "90"), nil}, {"-other", planLimit("12", "15", "90"), nil},
			{"", planLimit("10", "11", "90"), nil}}, 10},
		{"the inner one has another limit for everybody: each takes", []link{{"", planLimit("90", "80", "70"), nil}, {"", planLimit("90", "80", "6"), nil}}, 3},
		{"a dry run around: the inner one refuses", []link{{"", dryRun(planLimit("10", "90", "90")), nil}, {"", planLimit("10", "90", "90"), nil}}, 5},
	}
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		for _, row := range rows {
			row := row
			t.Run(row.name, func(t *testing.T) {
				var configs []*Config
				for _, one := range row.chain {
					configs = append(configs, named(nameOf(t)+one.suffix, redis, one.limit, one.circuit))
				}
				handler, up := nest(t, nil, configs...)
				require.Equal(t, map[int]int{200: row.passed, 429: 20 - row.passed}, countStatuses(handler, 20))
				require.Equal(t, row.passed, up.count())
			})
		}
	})
}

// Two limits with the same numbers are the same limit only if they have the same key source.
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

func TestNesting_failureCountsOnce(t *testing.T) {
	forEachWriter(t, func(t *testing.T, redis *RedisConfig, get func(handler http.Handler, path string) int) {
		both := named(nameOf(t), redis, tokens("1000"), failures("4"))
		handler, up := nest(t, nil, both, both)
		up.will(status(500))
		for i := 0; i < 4; i++ {
			require.Equal(t, 500, get(handler, "/"))
		}
		require.Equal(t, 503, get(handler, "/"))
		require.Equal(t, 4, up.count())
	})
}

func TestNesting_oneProbeClosesTheCircuit(t *testing.T) {
	forEachWriter(t, func(t *testing.T, redis *RedisConfig, get func(handler http.Handler, path string) int) {
		one := named(nameOf(t), redis, nil, oneProbe("1"))
		handler, up := nest(t, nil, one, one)
		up.will(status(500))
		require.Equal(t, 500, get(handler, "/"))
		up.will(nil)
		elapse(t, redis, time.Minute)
		for i := 0; i < 20; i++ {
			require.Equal(t, 200, get(handler, "/"))
		}
	})
}

func TestNesting_concurrentRequestsTakeOneTokenEach(t *testing.T) {
	newProcess(t, 0)
	one := named(t.Name(), nil, tokens("450"), failures("5"))
	handler, up := nest(t, nil, one, named(t.Name()+"-between", nil, tokens("100000"), failures("5")), one)
	l := newLoad()
	l.start(handler, 10, 60)
	require.Equal(t, map[int]int{200: 450, 429: 150}, l.wait())
	require.Equal(t, 450, up.count())
}
