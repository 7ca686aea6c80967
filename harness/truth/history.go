// Package truth runs a fleet of real gateways while everything around them fails, writes down what happened, and holds it
// against what is promised.
package truth

import (
	"sync"
	"time"
)

// kind is a route of the fleet, with its own middleware.
type kind string

const (
	scarce  kind = "scarce"  // a small limit, whose clients always want more
	plenty  kind = "plenty"  // a limit that is served by leases
	circuit kind = "circuit" // a circuit breaker
	plain   kind = "plain"   // nothing of ours
)

// limits are those of the two kinds that have one: tokens, and tokens a second.
var limits = map[kind]limit{
	scarce: {capacity: 30, rate: 2},
	plenty: {capacity: 250, rate: 30},
}

type limit struct{ capacity, rate float64 }

// The circuit breaker's settings: one failure opens it.
const (
	resetTimeout = time.Second
	probeTimeout = time.Second
	successes    = 2
	maxProbes    = 2
)

// arrival is one request that reached the upstream.
type arrival struct {
	kind    kind
	key     string
	gateway int
	at      time.Duration // since the history began
	done    time.Duration // when it was answered
	status  int           // 0: the client went away first
}

// answer is what a client got.
type answer struct {
	kind    kind
	gateway int
	sent    time.Duration
	took    time.Duration
	status  int // 0: none
	open    bool
}

// span is a stretch of time in which a gateway may not know what Redis knows: a fault, and what it takes to notice its
// beginning and its end.
type span struct {
	gateway  int
	from, to time.Duration
	reborn   bool // the gateway was started anew in it, and knew nothing
}

// history is all that happened. It is safe for concurrent use.
type history struct {
	begun time.Time

	mu       sync.Mutex // guards what follows
	arrivals []arrival
	answers  []answer
	clouds   []span
	losses   []time.Duration // of what Redis kept

	judged map[string]int   // how often there was something to judge
	spare  map[kind]float64 // tokens that were promised and not given, when they were fewest
}

// judges counts one more of what was judged.
func (h *history) judges(what string) {
	if h.judged == nil {
		h.judged = map[string]int{}
	}
	h.judged[what]++
}

func (h *history) now() time.Duration { return time.Since(h.begun) }

func (h *history) pass(p arrival) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.arrivals = append(h.arrivals, p)
}

func (h *history) answer(a answer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answers = append(h.answers, a)
}

func (h *history) cloud(s span) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clouds = append(h.clouds, s)
}

func (h *history) lose() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.losses = append(h.losses, h.now())
}

// slowest returns how long the slowest answer of a kind took since.
func (h *history) slowest(k kind, since time.Duration) (slowest time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, a := range h.answers {
		if a.kind == k && a.sent+a.took > since && !h.dead(a) {
			slowest = max(slowest, a.took)
		}
	}
	return slowest
}
