package resilience

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

func TestOnError_whileRedisIsUnavailable(t *testing.T) {
	for _, row := range []struct {
		name    string
		onError string
		config  Config
		code    int // of the upstream
		got     []int
	}{
		{"local limits", "local", Config{RateLimit: tokens("2")}, 200, []int{200, 200, 429, 429}},
		{"local breaks", "local", Config{CircuitBreaker: failures("2")}, 500, []int{500, 500, 503, 503}},
		{"local does both", "local", Config{RateLimit: tokens("3"), CircuitBreaker: failures("2")}, 500, []int{500, 500, 503, 503}},
		{"local is the default", "", Config{RateLimit: tokens("1"), CircuitBreaker: failures("2")}, 200, []int{200, 429, 429}},
		{"allow does not limit", "allow", Config{RateLimit: tokens("1")}, 200, []int{200, 200, 200, 200}},
		{"allow does not break", "allow", Config{CircuitBreaker: failures("1")}, 500, []int{500, 500, 500, 500}},
		{"allow does neither", "allow", Config{RateLimit: tokens("1"), CircuitBreaker: failures("1")}, 500, []int{500, 500, 500}},
		{"deny", "deny", Config{RateLimit: tokens("2"), CircuitBreaker: failures("2")}, 200, []int{503, 503, 503}},
		{"deny, the limiter alone", "deny", Config{RateLimit: tokens("2")}, 200, []int{503, 503, 503}},
		{"deny, the breaker alone", "deny", Config{CircuitBreaker: failures("2")}, 200, []int{503, 503, 503}},
		{"deny has no say where nothing is asked", "deny", Config{Health: &HealthConfig{}}, 200, []int{200, 200, 200}},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			newProcess(t, 0)
			row.config.Redis = &RedisConfig{Address: closedPort, OnError: row.onError}
			handler, up := newGateway(t, &row.config)
			up.will(status(row.code))
			var got []int
			for range row.got {
				got = append(got, get(handler))
			}
			require.Equal(t, row.got, got)
		})
	}
}

func TestOnError_forAKeyWithForeignData(t *testing.T) {
	server := redistest.Start(t)
	for _, row := range []struct {
		onError string
		got     []int
	}{
		{"local", []int{200, 200, 429, 429}},
		{"allow", []int{200, 200, 200, 200}},
		{"deny", []int{503, 503, 503, 503}},
	} {
		row := row
		t.Run("a bucket, "+row.onError, func(t *testing.T) {
			newProcess(t, 0)
			server.Do("RPUSH", bucketOf(t), "theirs")
			redis := at(server.Addr())
			redis.OnError = row.onError
			handler, _ := newGateway(t, &Config{Redis: redis, RateLimit: tokens("2"), CircuitBreaker: failures("1")})
			var got, other []int
			for range row.got {
				got = append(got, get(handler))
				request := httptest.NewRequest("GET", "/", nil)
				request.RemoteAddr = "192.0.2.2:1234"
				w := httptest.NewRecorder()
				handler.ServeHTTP(w, request)
				other = append(other, w.Code)
			}
			require.Equal(t, row.got, got)
			require.Equal(t, []int{200, 200, 429, 429}, other, "whose bucket is one")
			require.Equal(t, int64(1), server.Int("EXISTS", strings.Replace(bucketOf(t), "192.0.2.1", "192.0.2.2", 1)))
			require.Equal(t, "list", server.Text("TYPE", bucketOf(t)), "we do not touch what is not ours")
		})
	}
	for _, row := range []struct {
		onError string
		got     []int
	}{
		{"local", []int{500, 500, 503, 429}},
		{"allow", []int{500, 500, 500, 429}},
		{"deny", []int{503, 503, 503, 429}},
	} {
		row := row
		t.Run("the breaker, "+row.onError, func(t *testing.T) {
			newProcess(t, 0)
			server.Do("RPUSH", breakerOf(t), "theirs")
			redis := at(server.Addr())
			redis.OnError = row.onError
			handler, up := newGateway(t, &Config{Redis: redis, RateLimit: tokens("3"), CircuitBreaker: failures("2")})
			up.will(status(500))
			var got []int
			for range row.got {
				got = append(got, get(handler))
			}
			require.Equal(t, row.got, got)
			require.Equal(t, int64(1), server.Int("EXISTS", bucketOf(t)), "the limiter has Redis still")
			require.Equal(t, "list", server.Text("TYPE", breakerOf(t)), "we do not touch what is not ours")
		})
	}
}

func TestRedis_decidesAgainOnceAvailable(t *testing.T) {
	server := redistest.Start(t)
	newProcess(t, 0)
	handler, up := newGateway(t, &Config{Redis: at(server.Addr()), RateLimit: tokens("90"), CircuitBreaker: failures("2")})
	require.Equal(t, 200, get(handler))

	server.Kill()
	up.will(status(500))
	var got []int
	for i := 0; i < 4; i++ {
		got = append(got, get(handler))
	}
	require.Equal(t, []int{500, 500, 503, 503}, got, "this gateway breaks by itself")

	server.Run()
	up.will(nil)
	require.Eventually(t, func() bool { return get(handler) == 200 }, 2*time.Second, 10*time.Millisecond,
		"Redis, which has heard of no failure, rules")
	require.Equal(t, int64(1), server.Int("EXISTS", bucketOf(t)))
	require.Equal(t, "closed", server.Hash(breakerOf(t))["state"])
	require.Equal(t, "", server.Hash(breakerOf(t))["failures"])
}
