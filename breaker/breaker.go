// Package breaker is a circuit breaker that all gateways share through Redis: failures that one gateway sees count for
// all, and once the circuit is open no gateway sends requests.
//
// Lua scripts keep the state, on Redis's clock. Each gateway holds a view of it that is at most 100 ms old when a request
// passes on it, so a healthy circuit costs almost nothing. Without Redis, and while it is unavailable, the same rules run
// in this process, starting from what the view last said.
package breaker

import (
	"math"
	"sync"
	"time"

	"github.com/resilient-gateway/resilience/internal/store"
)

// Store runs scripts on Redis.
type Store interface {
	Run(calls []*store.Call, deadline time.Time) error
	IsUnavailable() bool
	// Lost returns the number of the latest connection that existed when one was lost; 0: none was lost yet.
	Lost() int64
}

// Settings are what a breaker is made with. They do not change.
type Settings struct {
	Store   Store         // nil: the state is kept in this process
	Mu      *sync.Mutex   // guards the breaker and its view; nil: New makes one
	Key     string        // of the breaker in Redis
	Timeout time.Duration // of a call made in the background

	// Now returns microseconds on a clock of this process that never goes back.
	Now func() int64

	// Changed is called without a lock, at each change of state that this gateway makes or learns of.
	Changed func(from, to string)
}

// Breaker decides for one key in Redis. All times are microseconds by Settings.Now unless they are a time.Duration. It is
// safe for concurrent use; no lock is held while Redis or the upstream works.
//
// A request meets its methods in this order:
//
//	the view    View, ExtendView, RefreshIfStale: may it pass without asking Redis? PermitAt is its permit
//	open        MustRefuse, Probing, OpenNotice, RecheckOpen: must it be refused without asking Redis?
//	a permit    Allow asks Redis. RequestPermit, PiggybackCall, Await and Cancel do so in another call's round trip
//	no answer   LastKnown, UnaskedPermit, AllowLocal: decisions while Redis is slow or unavailable
//	by hand     ForceOpen, ForceClosed, EndForce, Forced: an operator makes the state, for the whole fleet
//	the outcome Done, and BodySent before it if the permit is that of an upload
//
// Calls go downwards: permits and reports to refresh, refresh to reply, reply to view and machine. Only in the background does
// a reply cause another call: to restore a lost circuit, or to report what Redis could not be told.
type Breaker struct {
	Settings
	View    View
	keys    []string // Key, as a call takes it
	gateway string   // the id of this one, where the number of gateways counts

	// Guarded by Mu.
	machine             machine        // the last known state in Redis, or the state itself while Redis cannot be asked
	requestedAt         int64          // when the reply that the machine holds was asked for; 0: never
	answeredAt          int64          // when that reply arrived
	divergedLocally     bool           // the state has changed in this process since, while Redis was unavailable
	latestConn          int64          // the latest connection that replied with the state
	publishedGeneration int64          // the generation that the view was made from
	publishedState      int64          // the state that it was made from
	lastAdmitted        int64          // the latest arrival of a request that an earlier view may have let pass
	publishedAt         int64          // requests that arrived since then passed under the view's generation
	notice              *Notice        // the notice that holds, or nil
	refreshing          bool           // a refresh runs in the background
	rampCredit          int64          // ramp: of which each request that passes takes a wholeShare
	rechecking          bool           // the view is refreshed while a notice holds
	shared              *sharedRefresh // that requests wait for, or nil
	pendingRequest      *PermitRequest // goes to Redis with the next piggyback call; or nil
	noPlaceUntil        int64          // half-open: until then no place for another probe is expected
	noUploadPlaceUntil  int64          // half-open: the same for an upload
	reason              string         // why an operator has made the state, as last read
	reasonOf            int64          // the generation that it belongs to
	restoring           bool           // an open circuit that Redis lost is being written back
	unreported          unreported     // outcomes that Redis could not be told
	counts              bool           // a policy counts all requests
	counted             tally          // outcomes of the machine's generation that are to be reported, without View.Passes
	reportedAt          int64          // when outcomes were last reported in bulk
	reportDue           bool           // they will be again
	reportDueSince      int64          // the last report when that was decided

	// How the fleet's circuit and the gateway's own know of each other (Join); nil: there is one circuit. Functions, because types must not
	// refer to themselves (R36).
	ownHealthyLocked func() bool
	ownPassesLocked  func(n int64, policy *Policy)
	publishedLocked  func()
	closeOwnLocked   func()
	renewOwnLocked   func()
}

// New returns a closed breaker. It does not ask Redis: the first request does.
func New(settings Settings) *Breaker {
	if settings.Mu == nil {
		settings.Mu = &sync.Mutex{}
	}
	b := &Breaker{Settings: settings, keys: []string{settings.Key}, gateway: newCallID(), View: View{Failing: make(chan struct{}, 1), PassesSince: math.MaxInt64}}
	b.publishLocked() // no other goroutine has the breaker yet
	return b
}
