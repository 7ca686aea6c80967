package ratelimit

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/resilient-gateway/resilience/internal/store"
)

// A gateway registers with Redis for each limiter whose requests may use standing tokens. It joins, waits until the tokens of all gateways have
// been refilled, and uses standing tokens when a renewal has found its registration. It renews in the background, and stops some time before
// the registration ends. If the fleet has more gateways than may have standing tokens, it asks now and then whether there is room.

var registerScript = store.NewScript(register)

const (
	registrationSpare = 12 * time.Second // how much longer a registration lasts than twice the time that refills what is kept back
	registerTimeout   = time.Second
	registerAgain     = 5 * time.Second // after a call without an answer, and before asking for room again
	registerDenied    = time.Minute     // the same where the script failed
	renewAtLeast      = 30 * time.Second
	standingTick      = time.Second
)

// longestRegistration returns the microseconds that any registration lasts at most, whatever its limit.
func longestRegistration() int64 {
	return 2*standingTime.Microseconds() + 2*registrationSpare.Microseconds()
}

var errDenied = errors.New("ratelimit: the redis user may not run the commands of sorted sets that a registration needs")

// gateways is this gateway's registration among those with standing leases, and its standing tokens. The limiter's Mu guards it.
type gateways struct {
	keys                        []string // of the registry, as sent
	countsWire                  string   // the key of the counts, as sent
	none                        *standing
	current                     *standing // of the last limit; none: it has none
	used                        map[string]int64
	charged                     map[string]bool // used tokens that the bucket in this process has paid for
	opened                      []*batch        // batches of reports that are not sent
	owed                        []string        // keys whose reports made nothing whole
	running                     bool
	timed                       bool // runReports is going to run
	reported                    bool // NotStanding was called
	runRegistration, runReports func()
	own                         registration
}

// registration is what a gateway knows of its registration. The zero value has none.
type registration struct {
	name      string // of the last join
	permitted bool   // by the answer to a join
	confirmed bool   // a renewal after the wait has found it
	begins    int64  // when the wait ends
	ends      int64  // microseconds, on this process's clock
	due       int64  // when the next call is to be sent
	room      bool   // there was room for another gateway at the last call
}

func newGateways(settings Settings) gateways {
	none := &standing{used: map[string]int64{}}
	g := gateways{none: none, current: none, used: map[string]int64{}, charged: map[string]bool{}}
	if settings.Gateways != "" {
		g.countsWire = store.Word(settings.Gateways + ":count")
		g.keys = []string{store.Word(settings.Gateways), g.countsWire}
	}
	return g
}

// initRegistration prepares the registration in the background.
func initRegistration(l *Limiter) {
	l.gateways.runRegistration = func() {
		defer func() { recover() }()
		keepRegistered(l)
	}
}

// startStandingLocked starts the registration in the background when requests have asked Redis.
func startStandingLocked(l *Limiter) {
	if l.gateways.current.limit != nil && !l.gateways.running && len(l.atWork) > 0 {
		l.gateways.running = true
		go l.gateways.runRegistration()
	}
}

// keepRegistered joins and renews until the limiter is closed. It is one loop, not a chain of timers (R10).
func keepRegistered(l *Limiter) {
	for {
		wait := stepRegistration(l)
		if wait < 0 {
			return
		}
		time.Sleep(wait)
	}
}

// stepRegistration does what is due, and returns how long nothing is; less than 0: the limiter is closed.
func stepRegistration(l *Limiter) time.Duration {
	step := nextRegistrationStep(l)
	if step.closed {
		return -1
	}
	if step.call != nil {
		l.Store.Run([]*store.Call{step.call}, time.Now().Add(registerTimeout))
		applyRegistration(l, step)
	}
	return untilRegistrationStep(l)
}

// registrationStep is what a gateway does about its registration.
type registrationStep struct {
	closed   bool
	standing *standing
	call     *store.Call // nil: none is due
	join     bool
	at       int64 // when it was decided, before the call is sent
}

func nextRegistrationStep(l *Limiter) *registrationStep {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	step := &registrationStep{closed: l.closed, standing: l.gateways.current, at: l.Now()}
	repeatOwedLocked(l, step.at)
	registrationCallLocked(l, step)
	return step
}

// untilRegistrationStep returns how long nothing is due.
func untilRegistrationStep(l *Limiter) time.Duration {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	s := l.gateways.current
	left := time.Duration(l.gateways.own.due-l.Now()) * time.Microsecond
	if left > standingTick || s.limit == nil || l.Unavailable.Load() {
		return standingTick
	}
	if left < time.Millisecond {
		return time.Millisecond
	}
	return left
}

// registrationCallLocked makes the call that is due. Without permission, the gateway asks by an unknown name whether there is room, which changes
// nothing, and joins only then: each join takes a token from every bucket that is not full.
func registrationCallLocked(l *Limiter, step *registrationStep) {
	g, s := &l.gateways, step.standing
	if s.limit == nil || step.at < g.own.due || l.Unavailable.Load() {
		return
	}
	name, replaced, kind := g.own.name, "", "0"
	step.join = !g.own.permitted && g.own.room
	if step.join {
		replaced = g.own.name
		name = newName()
		kind = "1"
		g.own.name = name
		g.own.room = false
	} else if !g.own.permitted {
		name = "?"
	}
	words := append([]string{}, g.keys...)
	for _, arg := range []string{name, digits(registrationTime(s.limit)), kind, digits(longestRegistration()), digits(keepMillis(s.limit)), replaced} {
		words = append(words, store.Word(arg))
	}
	step.call = &store.Call{Script: registerScript, Number: 2, Words: words, Once: true}
}

// applyRegistration takes the answer to a call.
func applyRegistration(l *Limiter, step *registrationStep) {
	s := step.standing
	size, found, err := registrationAnswer(step.call)
	if err != nil && failedRegistration(l, s, err) {
		l.NotStanding(err)
	}
	l.Mu.Lock()
	defer l.Mu.Unlock()
	now := l.Now()
	g := &l.gateways
	if err != nil || s != g.current {
		return // if another limit was loaded, the gateway joins anew
	}
	applyFoundLocked(&g.own, s, size, found, step.join, step.at, now)
}

// failedRegistration says when to try again, and reports whether NotStanding is to be called.
func failedRegistration(l *Limiter, s *standing, err error) bool {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	g := &l.gateways
	if s != g.current {
		return false
	}
	g.own.due = l.Now() + registerAgain.Microseconds()
	if errors.Is(err, store.ErrUnavailable) {
		return false
	}
	g.own.due = l.Now() + registerDenied.Microseconds()
	first := !g.reported && l.NotStanding != nil
	g.reported = true
	return first
}

// applyFoundLocked takes how many gateways a call has found, and whether this one was among them.
func applyFoundLocked(g *registration, s *standing, size int64, found, join bool, sentAt, now int64) {
	limit := s.limit
	g.due = now + registerAgain.Microseconds()
	switch {
	case join:
		g.permitted = size <= limit.standing
		g.confirmed = false
		g.ends = sentAt + lasts(registrationTime(limit))
		s.until = 0
		if g.permitted {
			g.begins = now + longer(refillTime(limit, size))
			g.due = g.begins
		}
	case !g.permitted: // it has asked for room
		g.room = size < limit.standing
		if g.room {
			g.due = now
		}
	case !found || now >= lastUse(g, limit):
		g.permitted = false
		s.until = 0
		g.due = now + standingTick.Microseconds()
	default:
		if ends := sentAt + lasts(registrationTime(limit)); ends > g.ends {
			g.ends = ends
		}
		if !g.confirmed && sentAt >= g.begins {
			g.confirmed = true
			s.from = now // a request that has read the clock before must not use them
		}
		if g.confirmed {
			s.until = lastUse(g, limit)
		}
		g.due = now + renewAfter(limit)
	}
}

// lastUse returns when this gateway stops using standing tokens: what it has used must be refilled before Redis forgets it.
func lastUse(g *registration, limit *Limit) int64 {
	return g.ends - longer(refillTime(limit, limit.standing))
}

// registrationAnswer reads the answer of the script register.
func registrationAnswer(call *store.Call) (size int64, found bool, err error) {
	if call.Err != nil {
		return 0, false, call.Err
	}
	fields := strings.Fields(call.Answer)
	if len(fields) == 1 && fields[0] == "denied" {
		return 0, false, errDenied
	}
	if len(fields) != 2 {
		return 0, false, errBadReply
	}
	size, err = strconv.ParseInt(fields[0], 10, 64)
	return size, fields[1] == "1", err
}

// refillTime returns the microseconds in which a number of tokens is refilled.
func refillTime(limit *Limit, tokens int64) int64 {
	return int64(float64(tokens)*float64(limit.period)/float64(limit.refill)) + 1
}

// longer returns a time that is not less than the given one by Redis's clock, though this process's may be fast.
func longer(micros int64) int64 { return micros + micros/500 + 1 }

// registrationTime returns the microseconds that a registration lasts.
func registrationTime(limit *Limit) int64 {
	return 2*longer(refillTime(limit, limit.standing)) + registrationSpare.Microseconds()
}

// renewAfter returns the microseconds until a registration is renewed: a part of the time in which standing tokens are used.
func renewAfter(limit *Limit) int64 {
	after := (registrationTime(limit) - refillTime(limit, limit.standing)) / 4
	if after > renewAtLeast.Microseconds() {
		return renewAtLeast.Microseconds()
	}
	return after
}

// keepMillis returns the milliseconds for which the counts are kept: until every value that was written with them has expired.
func keepMillis(limit *Limit) int64 {
	capacity := limit.full / limit.period
	return (2*refillTime(limit, capacity+2*limit.standing)+longMicros+longestRegistration())/1000 + maxLeases + 1
}

// newName returns a name that no other join has.
func newName() string {
	name := make([]byte, 8)
	rand.Read(name)
	return hex.EncodeToString(name)
}
