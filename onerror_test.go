package resilience

import (
	"testing"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

func TestOnError_whileRedisIsUnavailable(t *testing.T) {
	for _, row := range []struct {
		name    string
		onError string
		config  Config
		code    int // of the upstream
		want    []int
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
		{"deny does not apply where Redis is not asked", "deny", Config{Health: &HealthConfig{}}, 200, []int{200, 200, 200}},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			newProcess(t, 0)
			row.config.Redis = &RedisConfig{Address: closedPort, OnError: row.onError}
			handler, up := newGateway(t, &row.config)
			up.will(status(row.code))
			require.Equal(t, row.want, statuses(handler, len(row.want)))
		})
	}
}

// A key that holds foreign data is an error of this key alone: Redis decides on all other keys.
func TestOnError_forAKeyWithForeignData(t *testing.T) {
	server := redistest.Start(t)
	limiter := Config{RateLimit: tokens("2"), CircuitBreaker: failures("1")}
	breaks := Config{RateLimit: tokens("3"), CircuitBreaker: failures("2")}
	for _, row := range []struct {
		name    string
		foreign func(t *testing.T) string // the key that holds foreign data
		onError string
		config  Config
		code    int // of the upstream
		want    []int
		others  []int                     // answers to another client
		intact  func(t *testing.T) string // a key that Redis decides on still
	}{
		{"a bucket", bucketOf, "local", limiter, 200, []int{200, 200, 429, 429}, []int{200, 200, 429, 429}, bucketOfOther},
		{"a bucket", bucketOf, "allow", limiter, 200, []int{200, 200, 200, 200}, []int{200, 200, 429, 429}, bucketOfOther},
		{"a bucket", bucketOf, "deny", limiter, 200, []int{503, 503, 503, 503}, []int{200, 200, 429, 429}, bucketOfOther},
		{"the circuit", breakerOf, "local", breaks, 500, []int{500, 500, 503, 429}, nil, bucketOf},
		{"the circuit", breakerOf, "allow", breaks, 500, []int{500, 500, 500, 429}, nil, bucketOf},
		{"the circuit", breakerOf, "deny", breaks, 500, []int{503, 503, 503, 429}, nil, bucketOf},
	} {
		row := row
		t.Run(row.name+", "+row.onError, func(t *testing.T) {
			newProcess(t, 0)
			server.Do("RPUSH", row.foreign(t), "theirs")
			row.config.Redis = at(server.Addr())
			row.config.Redis.OnError = row.onError
			handler, up := newGateway(t, &row.config)
			up.will(status(row.code))
			var got, others []int
			for i := range row.want {
				got = append(got, get(handler))
				if i < len(row.others) {
					others = append(others, getAs(handler, otherClient))
				}
			}
			require.Equal(t, row.want, got)
			require.Equal(t, row.others, others)
			require.Equal(t, int64(1), server.Int("EXISTS", row.intact(t)))
			require.Equal(t, "list", server.Text("TYPE", row.foreign(t)), "foreign data is left as it is")
		})
	}
}

func bucketOfOther(t *testing.T) string { return bucketOfClient(t, otherClient) }

func TestRedis_decidesAgainOnceAvailable(t *testing.T) {
	server := redistest.Start(t)
	newProcess(t, 0)
	handler, up := newGateway(t, &Config{Redis: at(server.Addr()), RateLimit: tokens("90"), CircuitBreaker: failures("2")})
	require.Equal(t, 200, get(handler))

	server.Kill()
	up.will(status(500))
	require.Equal(t, []int{500, 500, 503, 503}, statuses(handler, 4), "the gateway opens its own circuit")

	server.Run()
	up.will(nil)
	waitFor(t, func() bool { return get(handler) == 200 },
		"Redis decides, and knows of no failure")
	require.Equal(t, int64(1), server.Int("EXISTS", bucketOf(t)))
	require.Equal(t, "closed", server.Hash(breakerOf(t))["state"])
	require.Equal(t, "", server.Hash(breakerOf(t))["failures"])
}
