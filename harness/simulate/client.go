package simulate

import (
	"math"
	"math/rand"
	"time"
)

// client is a kind of traffic, given as a share of the rate that is allowed.
type client struct {
	Name string
	// asks returns at how many times the allowed rate it asks at a time.
	asks func(at time.Duration) float64
	// even says that requests come at even intervals, otherwise at random ones.
	even bool
	// picks returns which of the gateways a request at this time goes to.
	picks func(random *rand.Rand, gateways int, at time.Duration) int
	// lives is how long a gateway lives until it dies, on average, and another replaces it; 0: forever.
	lives time.Duration
	// least is the part of what is allowed that must be admitted.
	least float64
	// promise is that part once its bucket's first filling is spent, which leases may hold back some of.
	promise float64
}

func always(times float64) func(time.Duration) float64 {
	return func(time.Duration) float64 { return times }
}

// anyOf picks gateways at random, as a load balancer does.
func anyOf(random *rand.Rand, gateways int, _ time.Duration) int { return random.Intn(gateways) }

// skewed sends most requests to a few gateways: the one at rank k gets a share of 1/k^1.5.
func skewed(random *rand.Rand, gateways int, _ time.Duration) int {
	// The rank of a Pareto distribution, cut to what there is.
	rank := math.Pow(1-random.Float64(), -1/0.5)
	return int(math.Min(rank-1, 1e9)) % gateways
}

// turns sends all requests of half a second to one gateway, and then to the next.
func turns(_ *rand.Rand, gateways int, at time.Duration) int {
	return int(at/(500*time.Millisecond)) % gateways
}

var clients = []client{
	{Name: "its rate", asks: always(1), even: true, picks: anyOf, least: 0.99, promise: 0.99},
	{Name: "its rate, in turns", asks: always(1), even: true, picks: turns, least: 0.99, promise: 0.99},
	{Name: "twice its rate", asks: always(2), picks: anyOf, least: 0.95, promise: 0.98},
	{Name: "twice its rate, skewed", asks: always(2), picks: skewed, least: 0.95, promise: 0.98},
	{Name: "twice its rate, in turns", asks: always(2), picks: turns, least: 0.95, promise: 0.98},
	{Name: "twice its rate, gateways die", asks: always(2), picks: anyOf, lives: 5 * time.Second, least: 0.95, promise: 0.98},
	{Name: "bursts", asks: bursts, picks: anyOf, least: 0.95, promise: 0.9},
	{Name: "bursts, in turns", asks: bursts, picks: turns, least: 0.95, promise: 0.9},
}

// bursts asks for six times the rate for a second, and nothing for the next three.
func bursts(at time.Duration) float64 {
	if at%(4*time.Second) < time.Second {
		return 6
	}
	return 0
}

// ideal is one bucket that sees every request at once: what the limit allows.
type ideal struct {
	capacity, level float64
	rate            float64 // tokens a second
	at              time.Duration
}

func (b *ideal) take(at time.Duration) bool {
	b.level = math.Min(b.capacity, b.level+b.rate*(at-b.at).Seconds())
	b.at = at
	if b.level < 1 {
		return false
	}
	b.level--
	return true
}
