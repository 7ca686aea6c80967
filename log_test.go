package resilience

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/logging"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// logCapture is what the middlewares log outside of Traefik.
type logCapture struct {
	ended sync.WaitGroup

	mu   sync.Mutex // guards what follows
	text string
}

func (r *logCapture) read(from io.Reader) {
	defer r.ended.Done()
	piece := make([]byte, 4096)
	for {
		n, err := from.Read(piece)
		r.mu.Lock()
		r.text += string(piece[:n])
		r.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// count returns how many lines hold the text.
func (r *logCapture) count(text string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, line := range strings.Split(r.text, "\n") {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// eventually waits until a number of lines hold the text. They arrive through a pipe.
func (r *logCapture) eventually(t *testing.T, lines int, text string) {
	waitFor(t, func() bool { return r.count(text) == lines }, text)
}

// captureLog collects what is logged until the test ends.
func captureLog(t *testing.T) *logCapture {
	reader, writer, err := os.Pipe()
	require.NoError(t, err)
	r := &logCapture{}
	r.ended.Add(1)
	go r.read(reader)
	before := logging.SetOutput(writer)
	t.Cleanup(func() {
		logging.SetOutput(before)
		writer.Close()
		r.ended.Wait()
	})
	return r
}

// flush waits until all that was logged before has arrived.
func (r *logCapture) flush(t *testing.T) {
	newGateway(t, &Config{Name: "last", RateLimit: tokens("1")})
	r.eventually(t, 1, `"middleware":"last","parts"`)
}

func TestLog_announcesThePartsOnceAcrossReloads(t *testing.T) {
	newProcess(t, time.Hour)
	log := captureLog(t)
	ctx, reload := context.WithCancel(context.Background())
	config := &Config{Name: "gateway", RateLimit: &RateLimitConfig{Capacity: "7"}}
	newHandler(t, ctx, &upstream{}, config)
	newHandler(t, ctx, &upstream{}, config)
	log.eventually(t, 1, `"message":"middleware configured"`)
	log.eventually(t, 1, `"parts":"rate limit: 7 at once, 10 each 1s; state in this process"`)
	reload()
	newGateway(t, config)
	newGateway(t, &Config{Name: "other", RateLimit: &RateLimitConfig{Capacity: "8"}})
	log.eventually(t, 1, "8 at once")
	require.Equal(t, 2, log.count(`"message":"middleware configured"`))
}

func TestLog_warnsOnceOfConflictingSettings(t *testing.T) {
	const warning = "middlewares of this name have different settings"
	config := func() *Config {
		return &Config{Name: "gateway", RateLimit: tokens("10"), CircuitBreaker: failures("5")}
	}
	for _, row := range []struct {
		name   string
		change func(config *Config)
		lines  int
	}{
		{"the same settings", func(config *Config) {}, 0},
		{"another name", func(config *Config) { config.Name = "other"; config.RateLimit = nil }, 0},
		{"another capacity", func(config *Config) { config.RateLimit = tokens("11") }, 1},
		{"another threshold", func(config *Config) { config.CircuitBreaker = failures("6") }, 1},
		{"a part less", func(config *Config) { config.CircuitBreaker = nil }, 1},
		{"another source", func(config *Config) {
			config.RateLimit.SourceCriterion = &SourceCriterionConfig{RequestHeaderName: "X-Api-Key"}
		}, 1},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			newProcess(t, time.Hour)
			log := captureLog(t)
			for i := 0; i < 3; i++ {
				ctx, reload := context.WithCancel(context.Background())
				newHandler(t, ctx, &upstream{}, config())
				changed := config()
				row.change(changed)
				newHandler(t, ctx, &upstream{}, changed)
				reload()
			}
			log.flush(t)
			require.Equal(t, row.lines, log.count(warning))
		})
	}
}

func TestLog_reloadWithNewSettingsIsNoConflict(t *testing.T) {
	newProcess(t, time.Hour)
	log := captureLog(t)
	for i := 0; i < 3; i++ {
		ctx, reload := context.WithCancel(context.Background())
		newHandler(t, ctx, &upstream{}, &Config{Name: "gateway", RateLimit: tokens(strconv.Itoa(1 + i))})
		reload()
	}
	log.eventually(t, 3, `"message":"middleware configured"`)
	require.Equal(t, 0, log.count("warn"))
}

func TestLog_reportsRedisAndCircuitChanges(t *testing.T) {
	server := redistest.Start(t)
	newProcess(t, 0)
	log := captureLog(t)
	handler, up := newGateway(t, &Config{Name: "gateway", Redis: at(server.Addr()), RateLimit: tokens("1000"), CircuitBreaker: failures("2")})
	get(handler)
	server.Kill()
	up.will(status(502))
	for i := 0; i < 4; i++ {
		get(handler)
	}
	log.eventually(t, 1, `"message":"redis unavailable"`)
	log.eventually(t, 1, `"redis":"`+server.Addr()+`"`)
	log.eventually(t, 1, `"message":"circuit open"`)
	log.eventually(t, 1, `"message":"upstream failed","middleware":"gateway","status":"502"`)
	log.eventually(t, 1, `"message":"refused: circuit open"`)
	up.will(nil)
	server.Run()
	log.eventually(t, 1, `"message":"redis is back"`)
	require.Equal(t, 0, log.count("unexpected redis reply"), "it did not answer at all")
	get(handler)
	log.eventually(t, 1, `"message":"circuit closed"`)
}

// A name that is hashed in Redis is logged as it was configured.
func TestLog_usesTheConfiguredName(t *testing.T) {
	newProcess(t, 0)
	log := captureLog(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	_, err := New(ctx, &upstream{}, &Config{RateLimit: tokens("1")}, "shop{way}@file")
	require.NoError(t, err)
	log.eventually(t, 1, `"message":"middleware configured","middleware":"shop{way}"`)
}

func TestLog_warnsOfAnEmptyConfiguration(t *testing.T) {
	const nothing = "this middleware does nothing: it has neither rateLimit nor circuitBreaker nor health nor admin"
	for _, row := range []struct {
		name   string
		config *Config
		lines  int
	}{
		{"an empty one", &Config{}, 1},
		{"a Redis alone", &Config{Name: "a", Redis: at("127.0.0.1:1")}, 1},
		{"a limit", &Config{RateLimit: tokens("1")}, 0},
		{"a circuit breaker", &Config{CircuitBreaker: failures("1")}, 0},
		{"a health path", &Config{Health: &HealthConfig{}}, 0},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			newProcess(t, 0)
			log := captureLog(t)
			handler, _ := newGateway(t, row.config)
			require.Equal(t, 200, get(handler), "and all requests pass")
			log.flush(t)
			require.Equal(t, row.lines, log.count(nothing))
		})
	}
}

func TestLog_reportsAKeyWithForeignData(t *testing.T) {
	server := redistest.Start(t)
	newProcess(t, 0)
	server.Do("RPUSH", bucketOf(t), "theirs")
	server.Do("RPUSH", breakerOf(t), "theirs")
	log := captureLog(t)
	handler, _ := newGateway(t, &Config{Redis: at(server.Addr()), RateLimit: tokens("1000"), CircuitBreaker: failures("2")})
	for i := 0; i < 10; i++ {
		require.Equal(t, 200, get(handler))
	}
	log.eventually(t, 1, `"message":"unexpected redis reply","middleware":"`+t.Name()+`","reason":"ratelimit: the key in redis does not hold a bucket"`)
	log.eventually(t, 1, `"reason":"WRONGTYPE`)
	require.Equal(t, 0, log.count("redis unavailable"))
}

func TestLog_containsNoSecret(t *testing.T) {
	server := redistest.Start(t, "--requirepass", "right")
	newProcess(t, 0)
	log := captureLog(t)
	handler, up := newGateway(t, &Config{
		Name: "gateway",
		Redis: &RedisConfig{
			Address: server.Addr(), Username: "somebody", Password: "t0p-s3cret", Timeout: "5s", OnError: "local"},
		RateLimit: &RateLimitConfig{Capacity: "1", RefillRate: "1", RefillPeriod: "1h",
			SourceCriterion: &SourceCriterionConfig{RequestHeaderName: "X-Api-Key"}},
		CircuitBreaker: failures("1"),
	})
	up.will(status(500))
	for i := 0; i < 3; i++ {
		request := httptest.NewRequest("GET", "/?token=t0p-s3cret", nil)
		request.Header.Set("X-Api-Key", "t0p-s3cret")
		request.Header.Set("Authorization", "Bearer t0p-s3cret")
		handler.ServeHTTP(httptest.NewRecorder(), request)
	}
	limiter, _ := newGateway(t, &Config{Name: "limiter", RateLimit: &RateLimitConfig{Capacity: "1",
		SourceCriterion: &SourceCriterionConfig{RequestHeaderName: "X-Api-Key"}}})
	for i := 0; i < 3; i++ {
		request := httptest.NewRequest("GET", "/?token=t0p-s3cret", nil)
		request.Header.Set("X-Api-Key", "t0p-s3cret")
		limiter.ServeHTTP(httptest.NewRecorder(), request)
	}

	log.eventually(t, 1, "redis.password can be read in Traefik's API")
	log.eventually(t, 1, "WRONGPASS")
	log.eventually(t, 1, "refused: circuit open")
	log.eventually(t, 1, `"client":"header:sha256:`)
	require.Equal(t, 0, log.count("t0p"))
	require.Equal(t, 0, log.count("s3cret"))
	require.Equal(t, 0, log.count("right"))
}

// A refusal says what the bucket still holds, and in which state the circuit is.
func TestLog_saysWhatRemains(t *testing.T) {
	hourly := map[string]*LimitConfig{"hourly": {Capacity: "9", RefillRate: "1", RefillPeriod: "1h"}}
	for _, row := range []struct {
		name     string
		config   *Config
		requests int
		want     string
	}{
		{"the block's own limit", &Config{RateLimit: tokens("2")}, 3, `"limit":"default","message":"refused: rate limit exceeded","middleware":"m","refusedBefore":"0","remaining":"0"`},
		{"one of several limits", &Config{RateLimit: &RateLimitConfig{Capacity: "100", Limits: hourly}}, 10, `"limit":"hourly","message":"refused: rate limit exceeded","middleware":"m","refusedBefore":"0","remaining":"0"`},
		{"a request that costs more than is left", &Config{RateLimit: &RateLimitConfig{Capacity: "100", Limits: hourly, Cost: &CostConfig{Methods: map[string]string{"GET": "6"}}}}, 2,
			`"limit":"hourly","message":"refused: rate limit exceeded","middleware":"m","refusedBefore":"0","remaining":"3"`},
		{"a dry run", &Config{RateLimit: &RateLimitConfig{Capacity: "100", Limits: hourly, DryRun: "true", Cost: &CostConfig{Methods: map[string]string{"GET": "5"}}}}, 2,
			`"decision":"would_limit","level":"info","limit":"hourly","message":"would refuse: rate limit exceeded (dry run)","middleware":"m","refusedBefore":"0","remaining":"4"`},
		{"a penalty", &Config{RateLimit: &RateLimitConfig{Capacity: "1", RefillRate: "1", RefillPeriod: "1h", Penalty: &PenaltyConfig{Refusals: "1", Time: "1h"}}}, 4,
			`"limit":"penalty","message":"refused: rate limit exceeded","middleware":"m","refusedBefore":"0","time"`},
		{"a circuit", &Config{CircuitBreaker: failures("1")}, 3, `{"circuit":"open","decision":"circuit_open"`},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			forEachStore(t, func(t *testing.T, redis *RedisConfig) {
				log := captureLog(t)
				row.config.Name, row.config.Redis = "m", redis
				handler, up := newGateway(t, row.config)
				if row.config.CircuitBreaker != nil {
					up.will(status(500))
				}
				statuses(handler, row.requests)
				waitFor(t, func() bool { get(handler); return log.count(row.want) == 1 }, row.want) // a penalty begins a moment later
			})
		})
	}
}

// Refusals that are known from memory say so, too.
func TestLog_saysWhatRemainsFromMemory(t *testing.T) {
	newProcess(t, 0)
	log := captureLog(t)
	handler, _ := newGateway(t, &Config{Name: "m", RateLimit: &RateLimitConfig{Capacity: "100", Limits: map[string]*LimitConfig{"hourly": {Capacity: "9", RefillRate: "1", RefillPeriod: "1h"}},
		Cost: &CostConfig{Methods: map[string]string{"GET": "5"}}}})
	for i := 0; i < 3; i++ {
		statuses(handler, 50)
		gatewayClock.advance(time.Minute)
	}
	log.eventually(t, 3, `"limit":"hourly","message":"refused: rate limit exceeded"`)
	require.Equal(t, 3, log.count(`"remaining":"4"`))
}

// A refusal says which request and which trace it belongs to, if the request does, in a form that is no more than an id.
func TestLog_namesTheRequestAndTheTrace(t *testing.T) {
	const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	for _, row := range []struct {
		name   string
		header http.Header
		want   []string
		not    []string
	}{
		{"both", http.Header{"X-Request-Id": {"f-1.2"}, "Traceparent": {"00-" + trace + "-00f067aa0ba902b7-01"}},
			[]string{`"requestId":"f-1.2"`, `"traceId":"` + trace + `"`}, nil},
		{"neither", http.Header{}, nil, []string{"requestId", "traceId"}},
		{"a later version with more", http.Header{"Traceparent": {"01-" + trace + "-00f067aa0ba902b7-01-more"}}, []string{`"traceId":"` + trace + `"`}, nil},
		{"the first version with more", http.Header{"Traceparent": {"00-" + trace + "-00f067aa0ba902b7-01-more"}}, nil, []string{"traceId"}},
		{"a forbidden version", http.Header{"Traceparent": {"ff-" + trace + "-00f067aa0ba902b7-01"}}, nil, []string{"traceId"}},
		{"no trace", http.Header{"Traceparent": {"00-" + strings.Repeat("0", 32) + "-00f067aa0ba902b7-01"}}, nil, []string{"traceId"}},
		{"capitals", http.Header{"Traceparent": {"00-" + strings.ToUpper(trace) + "-00f067aa0ba902b7-01"}}, nil, []string{"traceId"}},
		{"two traces", http.Header{"Traceparent": {"00-" + trace + "-00f067aa0ba902b7-01", "x"}}, nil, []string{"traceId"}},
		{"short", http.Header{"Traceparent": {"00-"}}, nil, []string{"traceId"}},
		{"an id with more than an id", http.Header{"X-Request-Id": {`a "level":"error"`}}, []string{`"requestId":"a__level_:_error_"`}, nil},
		{"a long id", http.Header{"X-Request-Id": {strings.Repeat("x", 500)}}, []string{`"requestId":"` + strings.Repeat("x", 128) + `"`}, nil},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			newProcess(t, 0)
			log := captureLog(t)
			for _, config := range []*Config{
				{Name: "own", RateLimit: tokens("1")},
				{Name: "several", RateLimit: &RateLimitConfig{Capacity: "1", RefillRate: "1", RefillPeriod: "1h", Limits: map[string]*LimitConfig{"more": {Capacity: "9"}}}},
				{Name: "circuit", CircuitBreaker: failures("1")},
			} {
				handler, up := newGateway(t, config)
				up.will(status(500))
				for i := 0; i < 2; i++ {
					r := httptest.NewRequest("GET", "/", nil)
					r.Header = row.header
					handler.ServeHTTP(httptest.NewRecorder(), r)
				}
			}
			log.eventually(t, 3, `"refusedBefore":"0"`)
			for _, text := range row.want {
				require.Equal(t, 3, log.count(text), text)
			}
			for _, text := range row.not {
				require.Equal(t, 0, log.count(text), text)
			}
			require.Equal(t, 2, log.count(`"decision":"limited"`))
			require.Equal(t, 1, log.count(`"decision":"circuit_open"`))
			require.Equal(t, 2, log.count(`"limit":"default"`))
		})
	}
}
