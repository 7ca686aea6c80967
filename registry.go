package resilience

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/resilient-gateway/resilience/internal/logging"
	"github.com/resilient-gateway/resilience/internal/store"
	"github.com/resilient-gateway/resilience/ratelimit"
)

// grace is how long engines outlive their last handler. At a reload, Traefik cancels the old handlers before it makes the new ones, and the
// old ones answer requests until the new ones are ready.
const grace = 30 * time.Second

// reloadTime is for how long after the last cancellation a reload may be under way: New of all middlewares, one after the other.
const reloadTime = 5 * time.Second

// The interpreter exists for the life of the process, and so do these variables. Handlers are replaced at each reload; what they share is
// not.
var (
	start           = time.Now()
	processRegistry = newRegistry(grace)
)

// timeOf returns the time that a number of microseconds since start stands for.
func timeOf(now int64) time.Time {
	return start.Add(time.Duration(now) * time.Microsecond)
}

// registry holds the engines and the stores in use. Handlers with one name on one Redis share engines, and engines on one Redis with the same
// connection settings share a store. Each handler has a reference to its engines, which is released one grace after Traefik has cancelled
// the handler.
type registry struct {
	grace time.Duration
	since func(time.Time) time.Duration // the clock of all engines: time.Since, except in tests

	mu         sync.Mutex // guards what follows
	engines    map[string]*engines
	stores     map[string]*storeRef
	latest     *handlerSet       // the set that the last handler was added to
	cohort     *cohort           // the cohort of the instance that was made last (nesting.go)
	admins     []context.Context // of the middlewares with an admin block
	registered time.Time         // when this gateway last registered with Redis
	sampling   bool              // durations are sampled
	cancelled  time.Time         // when Traefik last cancelled handlers
}

// storeRef is a store, and the number of engines that use it.
type storeRef struct {
	store *store.Store
	users int
}

// handlerSet is the handlers of one configuration, which Traefik cancels together.
type handlerSet struct {
	done     <-chan struct{} // of their context
	refs     []engineRef
	released bool
}

// engineRef is the reference of one handler to its engines.
type engineRef struct {
	key      string
	settings *settings
}

func newRegistry(grace time.Duration) *registry {
	return &registry{grace: grace, since: time.Since, engines: map[string]*engines{}, stores: map[string]*storeRef{}}
}

// acquireEngines returns the engines for the settings, and makes them if there are none. The reference to them is released one grace after
// ctx is done.
func acquireEngines(ctx context.Context, s *settings) *engines {
	return processRegistry.acquire(ctx, s)
}

func (g *registry) acquire(ctx context.Context, s *settings) *engines {
	key := s.connection + " " + s.name
	if s.redis.Address == "" {
		key = s.name
	}
	shared, first, lines := g.acquireRef(ctx, key, s)
	for _, line := range lines {
		line()
	}
	if first != nil {
		// One function for all handlers of a configuration: a closure keeps the whole frame alive in which it was made (R10).
		context.AfterFunc(ctx, func() {
			defer func() { recover() }()
			g.noteCancelled()
			time.AfterFunc(g.grace, func() {
				defer func() { recover() }()
				g.release(first)
			})
		})
	}
	return shared
}

// noteCancelled notes that Traefik has cancelled handlers: it makes others now.
func (g *registry) noteCancelled() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cancelled = time.Now()
}

// acquireRef gives a handler its reference to the engines of the key. It returns the engines, the handler set if this handler is its first,
// and what is to be logged.
func (g *registry) acquireRef(ctx context.Context, key string, s *settings) (shared *engines, first *handlerSet, lines []func()) {
	parts := strings.Join(s.parts, "; ")
	g.mu.Lock()
	defer g.mu.Unlock()
	shared = g.engines[key]
	if shared == nil {
		shared = newEnginesLocked(g, s)
		g.engines[key] = shared
	}
	shared.count(g.hasAdminLocked())
	shared.users++
	lines = shared.addHandlerLocked(ctx, parts, s.compared(), s.warnings)
	first = g.addRefLocked(ctx, key, s)
	return shared, first, lines
}

// addRefLocked adds a reference to the set of the handlers with this context. It returns the set if this handler is its first.
func (g *registry) addRefLocked(ctx context.Context, key string, s *settings) *handlerSet {
	done := ctx.Done()
	if done == nil {
		return nil // it is never cancelled
	}
	var first *handlerSet
	if g.latest == nil || g.latest.released || g.latest.done != done {
		first = &handlerSet{done: done}
		g.latest = first
	}
	g.latest.refs = append(g.latest.refs, engineRef{key, s})
	return first
}

// release releases all references of a handler set.
func (g *registry) release(set *handlerSet) {
	g.mu.Lock()
	defer g.mu.Unlock()
	set.released = true
	replaced := map[string]bool{} // once for all routes of a name: it visits all of them
	for _, ref := range set.refs {
		if !replaced[ref.key] {
			replaced[ref.key] = true
			g.engines[ref.key].tally.replace(set.done)
		}
		g.releaseRefLocked(ref)
	}
}

// releaseRefLocked releases one reference. The last one closes the engines, and the last engines close the store.
func (g *registry) releaseRefLocked(ref engineRef) {
	shared := g.engines[ref.key]
	if ref.settings.rules == nil {
		ratelimit.ReleaseLimit(shared.limiter, ref.settings.limit)
	}
	shared.users--
	if shared.users > 0 {
		return
	}
	delete(g.engines, ref.key)
	shared.close()
	if shared.store == nil {
		return
	}
	connection := ref.settings.connection
	used := g.stores[connection]
	used.users--
	if used.users == 0 {
		delete(g.stores, connection)
		used.store.Close()
	}
}

// useStoreLocked returns the store for the settings, and makes it if there is none.
func (g *registry) useStoreLocked(s *settings) *store.Store {
	used := g.stores[s.connection]
	if used == nil {
		log := logging.New(s.label)
		address := s.redisName
		used = &storeRef{store: store.New(s.redis, func(reason error) {
			if reason == nil {
				log.Warn("redis is back", "redis", address)
			} else {
				log.Warn("redis unavailable", "redis", address, "reason", reason.Error())
			}
		})}
		g.stores[s.connection] = used
	}
	used.users++
	return used.store
}
