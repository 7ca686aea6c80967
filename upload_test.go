package resilience

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

func TestReadAhead_readsSmallBodiesOfKnownLength(t *testing.T) {
	broken := io.MultiReader(strings.NewReader("some"), iotest.ErrReader(io.ErrUnexpectedEOF))
	for _, row := range []struct {
		name   string
		method string
		body   io.Reader
		length int64
		expect string
		whole  bool
		got    string
		err    error
	}{
		{name: "small", body: strings.NewReader("hello"), length: 5, whole: true, got: "hello"},
		{name: "the longest", body: strings.NewReader(strings.Repeat("x", 4096)), length: 4096, whole: true, got: strings.Repeat("x", 4096)},
		{name: "longer", body: strings.NewReader(strings.Repeat("x", 4097)), length: 4097, got: strings.Repeat("x", 4097)},
		{name: "of unknown length", body: strings.NewReader("hello"), length: -1, got: "hello"},
		{name: "that waits for 100 Continue", body: strings.NewReader("hello"), length: 5, expect: "100-continue", got: "hello"},
		{name: "a GET that turns out to have none", method: "GET", body: strings.NewReader(""), length: -1, whole: true},
		{name: "a GET that has one", method: "GET", body: strings.NewReader("hello"), length: -1, got: "hello"},
		{name: "broken off", body: broken, length: 5, got: "some", err: io.ErrUnexpectedEOF},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			if row.method == "" {
				row.method = "POST"
			}
			r := httptest.NewRequest(row.method, "/", row.body)
			r.ContentLength = row.length
			if row.expect != "" {
				r.Header.Set("Expect", row.expect)
			}
			require.Equal(t, row.whole, readAhead(r))
			got, err := io.ReadAll(r.Body)
			require.Equal(t, row.got, string(got))
			require.Equal(t, row.err, err)
			require.NoError(t, r.Body.Close())
		})
	}
}

// pacedBody is a body whose pieces the test sends.
type pacedBody struct {
	sent chan string // closed: the end
}

func (s *pacedBody) Read(p []byte) (int, error) {
	piece, ok := <-s.sent
	if !ok {
		return 0, io.EOF
	}
	return copy(p, piece), nil
}

// The time of a probe with a body starts when the service has all of the body.
func TestProbe_timeoutStartsAtTheEndOfTheBody(t *testing.T) {
	rows := []struct {
		name         string
		body, answer time.Duration // how long each takes; a probe has five minutes
		takenOver    bool          // another probe has the place meanwhile
		code         int
		after        string
	}{
		{"a slow body, then a success", 7 * time.Minute, 0, false, 200, "closed"},
		{"a slow body, then a failure", 7 * time.Minute, 0, false, 500, "open"},
		{"a prompt body, then a slow answer", 2 * time.Minute, 4 * time.Minute, false, 200, "closed"},
		{"no answer in time", 2 * time.Minute, 7 * time.Minute, false, 200, "open"},
		{"neither in time", 7 * time.Minute, 7 * time.Minute, false, 200, "open"},
		{"another probe takes the place over", 3 * time.Minute, 0, true, 500, "closed"},
	}
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		for _, row := range rows {
			if redis == nil && row.answer > 0 {
				continue // only in Redis can a test see that the breaker knows of the end of the body
			}
			row := row
			t.Run(row.name, func(t *testing.T) {
				log := captureLog(t)
				handler, up := newGateway(t, &Config{Redis: redis, CircuitBreaker: &CircuitBreakerConfig{
					FailureThreshold: "1", ResetTimeout: "1h", HalfOpenSuccessThreshold: "1", HalfOpenMaxProbes: "1", ProbeTimeout: "5m",
				}})
				up.will(status(500))
				get(handler)
				elapse(t, redis, time.Hour)
				body := &pacedBody{sent: make(chan string)}
				up.will(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					io.Copy(io.Discard, r.Body)
					if row.answer > 0 {
						waitFor(t, func() bool { return circuit(t, redis)["probe:1"] != "" }, "the body has ended")
						elapse(t, redis, row.answer)
					}
					w.WriteHeader(row.code)
				}))
				w := httptest.NewRecorder()
				var done sync.WaitGroup
				done.Add(1)
				go func() {
					defer done.Done()
					handler.ServeHTTP(w, httptest.NewRequest("POST", "/", body))
				}()
				body.sent <- "some"
				elapse(t, redis, row.body)
				if row.takenOver {
					up.will(nil)
					require.Equal(t, 200, get(handler))
				}
				close(body.sent)
				done.Wait()
				require.Equal(t, row.code, w.Code)
				up.will(nil)
				if row.after == "open" {
					log.eventually(t, 2, `"message":"circuit open"`)
					require.Equal(t, 503, get(handler))
				} else {
					log.eventually(t, 1, `"message":"circuit closed"`)
					require.Equal(t, []int{200, 200}, statuses(handler, 2))
				}
			})
		}
	})
}

// circuit returns the state of the test's circuit in Redis.
func circuit(t *testing.T, redis *RedisConfig) map[string]string {
	return redistest.Connect(t, redis.Address).Hash(breakerOf(t))
}

// A body that has been read ahead does not make its request an upload: both probes pass at once.
func TestProbe_bodyReadAheadIsNoUpload(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		for _, row := range []struct {
			name  string
			limit *RateLimitConfig
		}{{"without a limiter", nil}, {"with a limiter", tokens("1000")}} {
			row := row
			t.Run(row.name, func(t *testing.T) {
				handler, up := newGateway(t, &Config{Redis: redis, RateLimit: row.limit, CircuitBreaker: &CircuitBreakerConfig{
					FailureThreshold: "1", ResetTimeout: "1h", HalfOpenSuccessThreshold: "2", HalfOpenMaxProbes: "2",
				}})
				require.Equal(t, []int{200, 200, 200, 200, 200}, statuses(handler, 5), "now there is a lease")
				up.will(status(500))
				get(handler)
				elapse(t, redis, time.Hour)
				over := make(chan struct{})
				up.will(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-over }))
				codes := make(chan int, 2)
				for i := 0; i < 2; i++ {
					go func() {
						w := httptest.NewRecorder()
						handler.ServeHTTP(w, httptest.NewRequest("POST", "/", strings.NewReader("hello")))
						codes <- w.Code
					}()
				}
				both := func() bool { return up.count() == 8 || len(codes) > 0 }
				waitFor(t, both)
				close(over)
				require.Equal(t, 200, <-codes)
				require.Equal(t, 200, <-codes)
			})
		}
	})
}
