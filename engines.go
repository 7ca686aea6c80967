package resilience

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/resilient-gateway/resilience/breaker"
	"github.com/resilient-gateway/resilience/identity"
	"github.com/resilient-gateway/resilience/internal/logging"
	"github.com/resilient-gateway/resilience/internal/store"
	"github.com/resilient-gateway/resilience/ratelimit"
)

// refusalLogInterval is how often the refusals of one client are logged, in microseconds.
const refusalLogInterval = int64(time.Minute / time.Microsecond)

// engines are what all middlewares of one name on one Redis share in this process: the limiter and the breaker, which have one lock, their
// clock, and the state of their log.
type engines struct {
	label string // the name for admin and the log
	scope string // the name in the keys in Redis
	id    string // a hash of the connection and the name

	store   *store.Store // nil: there is no Redis, the state is in this process
	limiter *ratelimit.Limiter
	breaker *breaker.Breaker
	// ownCircuit is that of this gateway alone, where minGateways is more than one.
	ownCircuit *breaker.Breaker
	circuits   *circuits // of scopes (circuits.go), and the one above

	since func(time.Time) time.Duration // the registry's clock
	now   func() int64                  // microseconds since start, by that clock

	log         *logging.Logger
	debug       bool
	tally       *tally
	fleet       *fleet
	fleetKey    string // of the registrations in Redis
	refusals    *sampler
	openLogDue  *atomic.Int64 // when a refusal by an open circuit is to be logged again
	failures    *sampler
	redisErrors *sampler

	// Guarded by the registry's lock.
	users          int // handlers that have a reference
	handlers       []handlerRef
	routes         []*route        // that admin shows (adminregistry.go)
	loggedParts    string          // the settings that were logged last
	loggedWarnings map[string]bool // the warnings that were logged
}

// handlerRef is a handler whose context may not be cancelled yet.
type handlerRef struct {
	ctx      context.Context
	settings string // in words: all handlers of one name should have the same
}

// newEnginesLocked makes engines, and their store if there is none. The registry's lock is held.
func newEnginesLocked(g *registry, s *settings) *engines {
	log := logging.New(s.label)
	shared := &engines{
		label: s.label, scope: s.name, id: identity.Hash(s.connection + " " + s.name),
		since:          g.since,
		now:            microsecondsBy(g.since),
		log:            log,
		debug:          log.DebugEnabled(),
		refusals:       newSampler(refusalLogInterval),
		openLogDue:     &atomic.Int64{},
		failures:       newSampler(time.Second.Microseconds()),
		redisErrors:    newSampler(time.Second.Microseconds()),
		loggedWarnings: map[string]bool{},
	}
	prefix := s.redis.KeyPrefix + ":{" + s.name + "}:"
	lock := &sync.Mutex{} // one for both engines, so that a request takes only one
	shared.tally = newTally(lock)
	shared.fleet = &fleet{}
	shared.fleetKey = prefix + "fleet"
	limit := ratelimit.Settings{Mu: lock, Prefix: prefix + "bucket:", PlanPrefix: prefix, Safe: identity.Harmless, Name: identity.Name, Now: shared.now,
		Gateways: prefix + "gateways", NotStanding: notStanding(log)}
	circuit := breaker.Settings{
		Mu:      lock,
		Key:     prefix + "breaker",
		Timeout: s.redis.Timeout,
		Now:     shared.now,
		Changed: changeOfFleet(log, shared.tally, shared.now),
	}
	if s.redis.Address != "" {
		shared.store = g.useStoreLocked(s)
		limit.Store = shared.store
		limit.Unavailable = &shared.store.Unavailable
		circuit.Store = shared.store
	}
	shared.breaker = breaker.New(circuit)
	shared.ownCircuit = breaker.New(breaker.Settings{Mu: lock, Now: shared.now, Changed: changeOfGateway(log)})
	breaker.Join(shared.breaker, shared.ownCircuit)
	shared.circuits = newCircuits(shared, circuit)
	limit.HealthyUntil = &shared.breaker.View.Healthy
	shared.limiter = ratelimit.New(limit)
	return shared
}

// Closures are made in short functions, because each keeps the whole frame alive in which it was made (R10).

// microsecondsBy returns the microseconds since start, by a clock.
func microsecondsBy(since func(time.Time) time.Duration) func() int64 {
	begun := start
	return func() int64 { return int64(since(begun)) / 1000 }
}

// notStanding returns what is done when Redis refuses to register this gateway for standing leases.
func notStanding(log *logging.Logger) func(error) {
	return func(reason error) { log.Warn("no standing leases", "reason", reason.Error()) }
}

// changeOfFleet returns what is done when the fleet's circuit changes its state.
func changeOfFleet(log *logging.Logger, tally *tally, now func() int64) func(from, to string) {
	return func(from, to string) {
		log.Warn("circuit "+to, "from", from, "to", to)
		tally.changed(from, to, "", now())
	}
}

// changeOfGateway returns what is done when the gateway's own circuit changes its state.
func changeOfGateway(log *logging.Logger) func(from, to string) {
	return func(from, to string) {
		log.Warn("circuit "+to+" for this gateway alone", "from", from, "to", to)
	}
}

// close ends the background work of the engines. Requests under way may still use them.
func (e *engines) close() { ratelimit.Close(e.limiter) }

// addHandlerLocked adds a handler, and returns what is to be logged about it once the registry's lock, which is held, has been released.
func (e *engines) addHandlerLocked(ctx context.Context, parts, settings string, warnings []string) (lines []func()) {
	differs := false
	var alive []handlerRef
	for _, other := range e.handlers {
		if other.ctx.Err() == nil {
			alive = append(alive, other)
			differs = differs || other.settings != settings
		}
	}
	e.handlers = append(alive, handlerRef{ctx: ctx, settings: settings})
	if e.loggedParts != parts {
		e.loggedParts = parts
		lines = append(lines, func() { e.log.Info("middleware configured", "parts", parts) })
	}
	if differs {
		warnings = append(warnings, "middlewares of this name have different settings; each request is judged by its own")
	}
	for _, warning := range warnings {
		if !e.loggedWarnings[warning] {
			e.loggedWarnings[warning] = true
			text := warning
			lines = append(lines, func() { e.log.Warn(text) })
		}
	}
	return lines
}

// keyMaker returns the ratelimit.KeyMaker of a key source: how an identity becomes the key of a bucket.
func keyMaker(source identity.Source) ratelimit.KeyMaker {
	switch {
	case source.Derived():
		return ratelimit.KeyMaker{MaxJoin: -1, Key: identity.BucketKey(source)}
	case source.Header != "":
		return ratelimit.KeyMaker{Kind: identity.KindHeader, MaxJoin: identity.MaxLength, Key: identity.OfHeader}
	case source.OfConnection():
		return ratelimit.KeyMaker{MaxJoin: -1, Key: source.OfAddress, ManyToOne: true} // each connection is another identity: many have one key
	}
	return ratelimit.KeyMaker{}
}

// viewRefresher lets a call of the limiter refresh the breaker's view in the same round trip.
type viewRefresher struct {
	breaker *breaker.Breaker
	policy  *breaker.Policy
}

// PiggybackCall returns a call that refreshes the view, or nil.
func (v *viewRefresher) PiggybackCall(now int64) *store.Call {
	return v.breaker.PiggybackCall(now, v.policy)
}

// Extend extends the view while it is refreshed.
func (v *viewRefresher) Extend(now int64) { v.breaker.ExtendView(now, v.policy) }
