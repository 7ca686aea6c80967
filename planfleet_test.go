package resilience

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// Several limits that several gateways share, counted in Redis.

// planLimit is a block of three limits that do not refill during a test.
func planLimit(own, group, everyone string) *RateLimitConfig {
	limit := tokens(own)
	all := slow(everyone)
	all.SourceCriterion = &SourceCriterionConfig{All: "true"}
	limit.Limits = map[string]*LimitConfig{"hourly": slow(group), "everyone": all}
	return limit
}

// everyoneOf returns the key in Redis of the limit for everybody.
func everyoneOf(t *testing.T) string {
	return "resilience:{" + nameOf(t) + "}:limit:everyone:all:"
}

// takenOf returns how many tokens are taken from a level of a bucket value, also by leases.
func takenOf(t *testing.T, server *redistest.Server, key, level string, capacity int64) int64 {
	value := server.Do("GET", key)
	if value == nil {
		return 0
	}
	parts := strings.Split(string(value.([]byte)), "|")
	own := strings.Fields(parts[0])
	if level == "default" {
		require.NotEqual(t, "0", own[2], "%s has no level default: %v", key, parts)
		return capacity - wholeTokens(t, own[0], own[2])
	}
	for _, part := range parts[1:] {
		words := strings.Fields(part)
		if words[0] == level {
			return capacity - wholeTokens(t, words[1], words[2])
		}
	}
	return 0
}

// wholeTokens returns the tokens of a level, rounded to the nearest number: a test takes no time compared with a refill.
func wholeTokens(t *testing.T, level, period string) int64 {
	n, err := strconv.ParseInt(level, 10, 64)
	require.NoError(t, err)
	unit, err := strconv.ParseInt(period, 10, 64)
	require.NoError(t, err)
	return (n + unit/2) / unit
}

// clients sends requests of several clients to a handler and counts the admitted ones of each.
type clients struct {
	done sync.WaitGroup

	mu       sync.Mutex // guards what follows
	admitted map[string]int64
	statuses map[int]int
}

func newClients() *clients { return &clients{admitted: map[string]int64{}, statuses: map[int]int{}} }

// start sends requests of each client, one after another, all clients at once.
func (c *clients) start(handler http.Handler, clients, requests int) {
	for i := 1; i <= clients; i++ {
		c.done.Add(1)
		go c.send(handler, fmt.Sprintf("192.0.2.%d", i), requests)
	}
}

func (c *clients) send(handler http.Handler, address string, requests int) {
	defer c.done.Done()
	for i := 0; i < requests; i++ {
		code := getAs(handler, address)
		c.mu.Lock()
		c.statuses[code]++
		if code == 200 {
			c.admitted[address]++
		}
		c.mu.Unlock()
	}
}

func (c *clients) total() int64 {
	total := int64(0)
	for _, n := range c.admitted {
		total += n
	}
	return total
}

// requireTaken requires that each admitted request has taken one token of each of its limits, and that no other request has taken any.
func (c *clients) requireTaken(t *testing.T, server *redistest.Server, own, group, everyone int64) {
	for address, admitted := range c.admitted {
		key := bucketOfClient(t, address)
		require.Equal(t, admitted, takenOf(t, server, key, "default", own), "default of %s", address)
		require.Equal(t, admitted, takenOf(t, server, key, "hourly", group), "hourly of %s", address)
	}
	require.Equal(t, c.total(), takenOf(t, server, everyoneOf(t), "everyone", everyone))
}

func TestPlansFleet_takesAllTokensOrNone(t *testing.T) {
	server := redistest.Start(t)
	for _, row := range []struct {
		name                 string
		own, group, everyone string
		clients, requests    int // of each gateway, and of each client there
		most, total          int64
	}{
		{"the block's own limit refuses", "7", "50", "90", 5, 20, 7, 35},
		{"the second limit of the client refuses", "50", "6", "90", 5, 20, 6, 30},
		{"the limit for everybody refuses", "50", "60", "33", 5, 20, 50, 33},
		{"each refuses some", "12", "12", "40", 5, 20, 12, 40},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			one, two, _, _ := gateways(t, &Config{Redis: at(server.Addr()), RateLimit: planLimit(row.own, row.group, row.everyone), CircuitBreaker: failures("5")})
			c := newClients()
			c.start(one, row.clients, row.requests)
			c.start(two, row.clients, row.requests)
			c.done.Wait()
			require.Equal(t, row.total, c.total(), "%v", c.statuses)
			require.Equal(t, 2*row.clients*row.requests, c.statuses[200]+c.statuses[429], "%v", c.statuses)
			for address, admitted := range c.admitted {
				require.LessOrEqual(t, admitted, row.most, address)
			}
			c.requireTaken(t, server, count(row.own), count(row.group), count(row.everyone))
		})
	}
}

func count(text string) int64 {
	n, _ := strconv.ParseInt(text, 10, 64)
	return n
}

// Large limits are leased. What Redis has taken is what was admitted and what the gateways still hold, whether requests are refused or not.
// A lease that ends unused takes tokens that nobody gets, but never the other way round.
func TestPlansFleet_holdsWhatRedisHasTaken(t *testing.T) {
	server := redistest.Start(t)
	for _, row := range []struct {
		name                 string
		own, group, everyone int64
		refuses              bool
	}{
		{"nothing is refused", 100000, 200000, 300000, false},
		{"the limit for everybody refuses", 100000, 200000, 900, true},
		{"the second limit of the client refuses", 100000, 800, 300000, true},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			config := &Config{Redis: at(server.Addr()), RateLimit: planLimit(fmt.Sprint(row.own), fmt.Sprint(row.group), fmt.Sprint(row.everyone))}
			newProcess(t, 0)
			one, _ := newInstance(t, config)
			newProcess(t, 0)
			two, _ := newInstance(t, config)
			begun := time.Now()
			c := newClients()
			for i := 0; i < 20; i++ {
				c.done.Add(2)
				c.send(one.handler, "192.0.2.1", 50)
				c.send(two.handler, "192.0.2.1", 50)
			}
			require.Equal(t, row.refuses, c.statuses[429] > 0, "%v", c.statuses)
			more := func() [3]int64 { // taken in Redis, and neither admitted nor held, by level
				client, all := heldBy(one)
				client2, all2 := heldBy(two)
				client, all = c.total()+client+client2, c.total()+all+all2
				key := bucketOfClient(t, "192.0.2.1")
				return [3]int64{takenOf(t, server, key, "default", row.own) - client, takenOf(t, server, key, "hourly", row.group) - client,
					takenOf(t, server, everyoneOf(t), "everyone", row.everyone) - all}
			}
			waitFor(t, func() bool {
				m := more()
				noneMinted := m[0] >= 0 && m[1] >= 0 && m[2] >= 0
				mayHaveEnded := time.Since(begun) > 400*time.Millisecond
				return noneMinted && (mayHaveEnded || m == [3]int64{})
			}, "%v", more())
		})
	}
}

// heldBy returns the tokens that a gateway holds for the client's buckets, and for everybody's.
func heldBy(m *Middleware) (client, all int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if g := m.cache.Grants["192.0.2.1:1234"]; g != nil {
		client = g.Tokens
	}
	return client, m.cache.Common.Tokens
}
