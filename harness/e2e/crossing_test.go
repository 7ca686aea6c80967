package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	redigo "github.com/gomodule/redigo/redis"
	"github.com/resilient-gateway/resilience/harness/wire"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// crossPeriod is how long a bucket of one token takes to fill, in seconds: each key's own part of it is the key's mark.
const crossPeriod = 1000000

// mark is what Redis is told of a key beforehand, and what its verdict must therefore be: an empty bucket that lacks so
// many seconds of having a token, a number that no other key has. Every third has a token to give.
func mark(key int) (lacks int, full bool) {
	return crossPeriod - 100*key, key%3 == 0
}

// TestCrossing asks for thousands of keys at once while the connections to Redis fail in every way there is. Each answer
// of Redis tells which key it is for: one that another key got would be seen.
func TestCrossing(t *testing.T) {
	const keys, clients, length = 4000, 48, 8 * time.Second
	server := redistest.Start(t)
	seeded := time.Now()
	seedBuckets(t, server, keys)
	const timeout = 150 * time.Millisecond
	w, err := wire.New(server.Addr(), timeout+50*time.Millisecond)
	require.NoError(t, err)
	t.Cleanup(w.Close)
	g := startTraefik(t, options{upstream: startUpstream(t), change: func(static map[string]any) { delete(static, "accessLog") },
		plugin: block{
			// With deny, a 200 or 429 is Redis's word and nobody else's.
			"redis": block{"address": w.Addr(), "timeout": timeout.String(), "onError": "deny"},
			"rateLimit": block{"capacity": 1, "refillRate": 1, "refillPeriod": fmt.Sprint(crossPeriod, "s"),
				"sourceCriterion": block{"requestHeaderName": "X-Key"}},
		}})

	seed := rand.Uint64()
	if text := testSeed(); text != 0 {
		seed = text
	}
	random := rand.New(rand.NewPCG(seed, 1))
	stop := make(chan struct{})
	tally := &crossTally{}
	begun := time.Now()
	var done sync.WaitGroup
	for c := range clients {
		done.Go(func() {
			own := rand.New(rand.NewPCG(seed, uint64(c)+2))
			for {
				select {
				case <-stop:
					return
				default:
					tally.ask(g, own.IntN(keys), seeded)
				}
			}
		})
	}
	breaks := []func(){w.Cut, w.Hold, w.Reset, func() { w.Slow(timeout - 10*time.Millisecond) }, func() { w.Slow(2 * timeout) }, server.Pause}
	faults := 0
	for time.Since(begun) < length {
		time.Sleep(time.Duration(100+random.IntN(200)) * time.Millisecond)
		breaks[random.IntN(len(breaks))]()
		time.Sleep(time.Duration(10+random.IntN(300)) * time.Millisecond)
		require.NoError(t, w.Heal())
		server.Resume()
		faults++
	}
	close(stop)
	done.Wait()

	seen := w.Seen()
	t.Logf("seed %d: %d faults, %v, %d connections", seed, faults, tally.counts, seen.Accepted)
	require.Empty(t, tally.wrong, "seed %d", seed)
	require.Zero(t, seen.Reused, "a connection that failed is used again, seed %d", seed)
	require.Greater(t, tally.counts[200], keys/10)
	require.Greater(t, tally.counts[429], keys/2)
	require.Greater(t, tally.counts[503], 100, "the faults were not met")
}

func seedBuckets(t *testing.T, server *redistest.Server, keys int) {
	c, err := redigo.Dial("tcp", server.Addr())
	require.NoError(t, err)
	defer c.Close()
	now, err := redigo.Int64s(c.Do("TIME"))
	require.NoError(t, err)
	for key := range keys {
		lacks, full := mark(key)
		if full {
			continue
		}
		// A bucket as the limiter's script keeps it: level, time, period.
		level := int64(crossPeriod-lacks) * 1000000
		value := fmt.Sprintf("%d %d %d", level, now[0]*1000000+now[1], int64(crossPeriod)*1000000)
		require.NoError(t, c.Send("SET", fmt.Sprint("resilience:{gateway}:bucket:header:", keyName(key)), value))
	}
	_, err = c.Do("")
	require.NoError(t, err)
}

func keyName(key int) string { return fmt.Sprint("key", key) }

// crossTally is what was answered. It is safe for concurrent use.
type crossTally struct {
	mu     sync.Mutex // guards what follows
	counts map[int]int
	wrong  []string
}

// ask asks for a key and judges the answer.
func (c *crossTally) ask(g *traefik, key int, seeded time.Time) {
	request, err := http.NewRequest(http.MethodGet, g.url("/proxy/ok"), nil)
	if err != nil {
		panic(err)
	}
	request.Header.Set("X-Key", keyName(key))
	r := send(request)
	wrong := crossed(key, r, int(time.Since(seeded).Seconds())+3)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts == nil {
		c.counts = map[int]int{}
	}
	c.counts[r.status]++
	if wrong != "" && len(c.wrong) < 10 {
		c.wrong = append(c.wrong, wrong)
	}
}

// crossed tells what shows that the answer is not the key's own, since at most age seconds ago.
func crossed(key int, r reply, age int) string {
	lacks, full := mark(key)
	switch r.status {
	case http.StatusServiceUnavailable:
		return ""
	case http.StatusOK:
		if full {
			return ""
		}
	case http.StatusTooManyRequests:
		after, err := strconv.Atoi(r.header.Get("Retry-After"))
		if full {
			lacks = crossPeriod // its one token is gone
		}
		// One more: who came before the call was sent counts from when it came, and rounds up.
		if err == nil && after <= lacks+1 && after >= lacks-age {
			return ""
		}
	}
	return fmt.Sprintf("key %d, which lacks %d s (full: %v), was answered %d, Retry-After %s %v",
		key, lacks, full, r.status, r.header.Get("Retry-After"), r.err)
}
