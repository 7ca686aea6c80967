package resilience

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/resilient-gateway/resilience/breaker"
	"github.com/resilient-gateway/resilience/identity"
	"github.com/resilient-gateway/resilience/internal/logging"
	"github.com/resilient-gateway/resilience/internal/store"
	"github.com/resilient-gateway/resilience/ratelimit"
)

// grace is how long a scope outlives its last handler. Traefik cancels the old handlers before it makes the new ones, and
// the old ones go on answering until it has.
const grace = 30 * time.Second

// noteEvery is how often the refusals of one client are logged, microseconds.
const refusalLogInterval = int64(time.Minute / time.Microsecond)

// The interpreter lives as long as Traefik, and so does this: middlewares come and go with each reload, what they share
// must not.
var (
	start           = time.Now()
	processRegistry = newRegistry(grace)
)

// timeOf returns the time that a number of microseconds since start stands for.
func timeOf(now int64) time.Time {
	return start.Add(time.Duration(now) * time.Microsecond)
}

// scope is what all middlewares of one name on one Redis share in this process.
type engines struct {
	store       *store.Store // nil: none, the state is in this process
	limiter     *ratelimit.Limiter
	breaker     *breaker.Breaker
	log         *logging.Logger
	debug       bool
	since       func(time.Time) time.Duration // time.Since, or a test's
	now         func() int64                  // microseconds since start, by it
	refusals    *sampler
	openLogDue  *atomic.Int64 // when a refusal by an open circuit is to be logged again
	failures    *sampler
	redisErrors *sampler

	// Guarded by the registry's lock.
	users          int
	handlers       []handlerRef
	loggedParts    string          // the settings that were logged last
	loggedWarnings map[string]bool // what was warned about
}

// member is a handler that is not cancelled yet.
type handlerRef struct {
	ctx      context.Context
	settings string // all that the scope's other members should have alike
}

// generation is the handlers of one configuration, which Traefik cancels together.
type handlerSet struct {
	done  <-chan struct{}
	refs  []engineRef // that they have in scopes
	ended bool
}

type engineRef struct {
	key      string
	settings *settings
}

type storeEntry struct {
	store *store.Store
	users int
}

// registry holds the scopes and the stores in use.
type registry struct {
	grace time.Duration
	since func(time.Time) time.Duration // the clock of all engines

	mu      sync.Mutex // guards what follows
	engines map[string]*engines
	stores  map[string]*storeEntry
	latest  *handlerSet
	cohort  *cohort // of the instance that was made last
}

func newRegistry(grace time.Duration) *registry {
	return &registry{grace: grace, since: time.Since, engines: map[string]*engines{}, stores: map[string]*storeEntry{}}
}

// join returns the scope of the settings, making it where there is none. It is left when ctx is done and the grace over.
func acquireEngines(ctx context.Context, s *settings) *engines {
	return processRegistry.acquire(ctx, s)
}

func (g *registry) acquire(ctx context.Context, s *settings) *engines {
	key := s.connection + " " + s.name
	if s.redis.Address == "" {
		key = s.name
	}
	one, begun, lines := g.acquireRef(ctx, key, s)
	for _, line := range lines {
		line()
	}
	if begun != nil {
		// One for all handlers of a configuration: the interpreter keeps all that a function passed on was made among.
		context.AfterFunc(ctx, func() {
			defer func() { recover() }()
			time.AfterFunc(g.grace, func() {
				defer func() { recover() }()
				g.releaseSet(begun)
			})
		})
	}
	return one
}

// seatOf gives a handler its seat in the scope of the key. It returns the scope, the generation where this handler is its first, and what
// is to be logged.
func (g *registry) acquireRef(ctx context.Context, key string, s *settings) (one *engines, begun *handlerSet, lines []func()) {
	parts := strings.Join(s.parts, "; ")
	g.mu.Lock()
	defer g.mu.Unlock()
	one = g.engines[key]
	if one == nil {
		one = g.newEngines(s)
		g.engines[key] = one
	}
	one.users++
	lines = one.addHandler(ctx, parts, fmt.Sprintf("%s; %+v", parts, s.keySource), s.warnings)
	begun = g.register(ctx, key, s)
	return one, begun, lines
}

// enrol notes that the handler with this context has a seat in the scope. It returns the generation where this handler is
// its first. The lock is held.
func (g *registry) register(ctx context.Context, key string, s *settings) *handlerSet {
	done := ctx.Done()
	if done == nil {
		return nil // it is never cancelled
	}
	var begun *handlerSet
	if g.latest == nil || g.latest.ended || g.latest.done != done {
		begun = &handlerSet{done: done}
		g.latest = begun
	}
	g.latest.refs = append(g.latest.refs, engineRef{key, s})
	return begun
}

// end frees the seats of a generation.
func (g *registry) releaseSet(one *handlerSet) {
	g.mu.Lock()
	defer g.mu.Unlock()
	one.ended = true
	for _, taken := range one.refs {
		g.release(taken.key, taken.settings)
	}
}

// newScope makes a scope, and the store it needs if that is not there yet. The lock is held.
func (g *registry) newEngines(s *settings) *engines {
	log := logging.New(s.label)
	one := &engines{
		log:            log,
		debug:          log.Debugs(),
		refusals:       newSampler(refusalLogInterval),
		openLogDue:     &atomic.Int64{},
		failures:       newSampler(time.Second.Microseconds()),
		redisErrors:    newSampler(time.Second.Microseconds()),
		loggedWarnings: map[string]bool{},
	}
	prefix := s.redis.KeyPrefix + ":{" + s.name + "}:"
	since, begun := g.since, start // captured (R3)
	clock := func() int64 { return int64(since(begun)) / 1000 }
	one.since = since
	one.now = clock
	lock := &sync.Mutex{} // of both, so that a request takes one
	limiter := ratelimit.Settings{Mu: lock, Prefix: prefix + "bucket:", Safe: identity.Harmless, Name: identity.Name, Now: clock}
	keeper := breaker.Settings{
		Mu:      lock,
		Key:     prefix + "breaker",
		Timeout: s.redis.Timeout,
		Now:     clock,
		Changed: func(from, to string) {
			log.Warn("circuit "+to, "from", from, "to", to)
		},
	}
	if s.redis.Address != "" {
		one.store = g.useStore(s)
		limiter.Store = one.store
		limiter.Unavailable = &one.store.Unavailable
		keeper.Store = one.store
	}
	one.breaker = breaker.New(keeper)
	limiter.HealthyUntil = &one.breaker.View.Healthy
	one.limiter = ratelimit.New(limiter)
	return one
}

func (g *registry) useStore(s *settings) *store.Store {
	entry := g.stores[s.connection]
	if entry == nil {
		log := logging.New(s.label)
		address := s.redis.Address
		entry = &storeEntry{store: store.New(s.redis, func(reason error) {
			if reason == nil {
				log.Warn("redis is back", "redis", address)
			} else {
				log.Warn("redis unavailable", "redis", address, "reason", reason.Error())
			}
		})}
		g.stores[s.connection] = entry
	}
	entry.users++
	return entry.store
}

// leave ends a handler's part in a scope; the last one takes the scope with it, and the last scope the store. The lock is
// held.
func (g *registry) release(key string, s *settings) {
	one := g.engines[key]
	one.users--
	if one.users > 0 {
		return
	}
	delete(g.engines, key)
	ratelimit.Close(one.limiter)
	if one.store == nil {
		return
	}
	entry := g.stores[s.connection]
	entry.users--
	if entry.users == 0 {
		delete(g.stores, s.connection)
		entry.store.Close()
	}
}

// enter adds a handler and returns what is to be logged about it, to be done without the lock, which is held.
func (one *engines) addHandler(ctx context.Context, parts, settings string, warnings []string) (lines []func()) {
	differs := false
	var alive []handlerRef
	for _, other := range one.handlers {
		if other.ctx.Err() == nil {
			alive = append(alive, other)
			differs = differs || other.settings != settings
		}
	}
	one.handlers = append(alive, handlerRef{ctx: ctx, settings: settings})
	if one.loggedParts != parts {
		one.loggedParts = parts
		lines = append(lines, func() { one.log.Info("middleware configured", "parts", parts) })
	}
	if differs {
		warnings = append(warnings, "middlewares of this name have different settings; each request is judged by its own")
	}
	for _, warning := range warnings {
		if !one.loggedWarnings[warning] {
			one.loggedWarnings[warning] = true
			text := warning
			lines = append(lines, func() { one.log.Warn(text) })
		}
	}
	return lines
}
