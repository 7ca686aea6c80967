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
//
// Routes of a limiter may have different limits. One registration is for all: it is long enough for the strictest limit, and the number of
// gateways that its join has found permits the use of those limits that keep back as many tokens. So a reload in which limits come, go or
// change costs a join only where a limit that had no permission has room.

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
	all                         []*standing // one for each limit that a route uses, or has used
	used                        map[string]int64
	charged                     map[string]bool // used tokens that the bucket in this process has paid for
	opened                      []*batch        // batches of reports that are not sent
	running                     bool
	timed                       bool // runReports is going to run
	reported                    bool // NotStanding was called
	runRegistration, runReports func()
	own                         registration
}

// registration is what a gateway knows of its registration, which is for all limits of its limiter. The zero value has none.
type registration struct {
	name     string // of the last join
	size     int64  // how many gateways the answer to the join has found; 0: the registration is not known, or lost
	joinedAt int64  // when that answer came
	lasts    int64  // microseconds that the last answered call asked for
	ends     int64  // microseconds, on this process's clock
	due      int64  // when the next call is to be sent
	room     bool   // a limit that this gateway is not permitted for had room for another gateway at the last call
}

func newGateways(settings Settings) gateways {
	none := &standing{used: map[string]int64{}}
	g := gateways{none: none, used: map[string]int64{}, charged: map[string]bool{}}
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
	if !l.gateways.running && len(l.atWork) > 0 && strictestLocked(&l.gateways) != nil {
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
	closed bool
	call   *store.Call // nil: none is due
	kind   string      // of the call
	lasts  int64       // the registration that the call asks for
	at     int64       // when it was decided, before the call is sent
}

// The kinds of calls.
const (
	stepJoin  = "join"
	stepRenew = "renew"
	stepAsk   = "ask" // whether there is room
)

func nextRegistrationStep(l *Limiter) *registrationStep {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	step := &registrationStep{closed: l.closed, at: l.Now()}
	repeatOwedLocked(l, step.at)
	registrationCallLocked(l, step)
	return step
}

// untilRegistrationStep returns how long nothing is due.
func untilRegistrationStep(l *Limiter) time.Duration {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	left := time.Duration(l.gateways.own.due-l.Now()) * time.Microsecond
	if left > standingTick || strictestLocked(&l.gateways) == nil || l.Unavailable.Load() {
		return standingTick
	}
	if left < time.Millisecond {
		return time.Millisecond
	}
	return left
}

// registrationCallLocked makes the call that is due. Without permission for any limit, the gateway asks by an unknown name whether there is room,
// which changes nothing, and joins only then: each join takes a token from every bucket that is not full. Its own last registration, which may not
// have ended yet, does not count: the join would replace it.
func registrationCallLocked(l *Limiter, step *registrationStep) {
	g := &l.gateways
	strictest := strictestLocked(g)
	if strictest == nil || step.at < g.own.due || l.Unavailable.Load() {
		return
	}
	step.lasts = registrationTime(strictest)
	step.kind = stepAsk
	name, replaced, join := "?", g.own.name, "0"
	if g.own.room {
		step.kind = stepJoin
		loseRegistrationLocked(g)
		name = newName()
		join = "1"
		g.own.name = name
	} else if isPermittedLocked(g) {
		step.kind = stepRenew
		name = g.own.name
		replaced = ""
	}
	words := append([]string{}, g.keys...)
	for _, arg := range []string{name, digits(step.lasts), join, digits(longestRegistration()), digits(keepLocked(g)), replaced} {
		words = append(words, store.Word(arg))
	}
	step.call = &store.Call{Script: registerScript, Number: 2, Words: words, Once: true}
}

// applyRegistration takes the answer to a call.
func applyRegistration(l *Limiter, step *registrationStep) {
	size, found, err := registrationAnswer(step.call)
	if err != nil {
		if failedRegistration(l, err) {
			l.NotStanding(err)
		}
		return
	}
	l.Mu.Lock()
	defer l.Mu.Unlock()
	applyFoundLocked(&l.gateways, step, size, found, l.Now())
}

// failedRegistration says when to try again, and reports whether NotStanding is to be called.
func failedRegistration(l *Limiter, err error) bool {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	g := &l.gateways
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
func applyFoundLocked(g *gateways, step *registrationStep, size int64, found bool, now int64) {
	switch step.kind {
	case stepJoin:
		g.own.size = size
		g.own.joinedAt = now
		g.own.lasts = step.lasts
		g.own.ends = step.at + lasts(step.lasts)
		g.own.due = now + registerAgain.Microseconds()
		if isPermittedLocked(g) {
			g.own.due = nextRenewalLocked(g, now)
		}
	case stepAsk:
		g.own.due = now + registerAgain.Microseconds()
		findRoomLocked(g, size, now)
	default:
		applyRenewalLocked(g, step, size, found, now)
	}
}

// applyRenewalLocked takes the answer to a renewal. After the last use it is as if the registration was not found.
func applyRenewalLocked(g *gateways, step *registrationStep, size int64, found bool, now int64) {
	own := &g.own
	if !found || now >= lastUse(own) {
		loseRegistrationLocked(g)
		own.due = now + standingTick.Microseconds()
		return
	}
	own.lasts = step.lasts
	if ends := step.at + lasts(step.lasts); ends > own.ends {
		own.ends = ends
	}
	for _, s := range g.all {
		if s.routes > 0 {
			confirmLocked(own, s, step, now)
		}
	}
	own.due = nextRenewalLocked(g, now)
	findRoomLocked(g, size-1, now)
}

// confirmLocked lets a limit's standing tokens be used if a renewal was sent after the wait, and if it asked for a registration that is long
// enough for the limit.
func confirmLocked(own *registration, s *standing, step *registrationStep, now int64) {
	if !permits(own, s.limit) || registrationTime(s.limit) > step.lasts {
		return
	}
	if !s.confirmed && step.at >= waitsUntil(own, s.limit) {
		s.confirmed = true
		s.from = now // a request that has read the clock before must not use them
	}
	if s.confirmed {
		s.until = lastUse(own)
	}
}

// loseRegistrationLocked ends the use of all standing tokens until the gateway has joined again.
func loseRegistrationLocked(g *gateways) {
	g.own.size = 0
	g.own.room = false
	for _, s := range g.all {
		s.confirmed = false
		s.until = 0
	}
}

// findRoomLocked notes whether a limit that this gateway is not permitted for has room, where this number of others is registered.
func findRoomLocked(g *gateways, others, now int64) {
	for _, s := range g.all {
		if s.routes > 0 && !permits(&g.own, s.limit) && others < s.limit.standing {
			g.own.room = true
			g.own.due = now
		}
	}
}

// nextRenewalLocked returns when the registration is to be renewed: soon enough, and when a wait ends.
func nextRenewalLocked(g *gateways, now int64) int64 {
	due := now + standingTick.Microseconds()
	if strictest := strictestLocked(g); strictest != nil {
		due = now + renewAfter(strictest)
	}
	for _, s := range g.all {
		if s.routes > 0 && !s.confirmed && permits(&g.own, s.limit) && waitsUntil(&g.own, s.limit) < due {
			due = waitsUntil(&g.own, s.limit)
		}
	}
	return due
}

// permits reports whether the answer to the last join permits a gateway to use the standing tokens of a limit.
func permits(own *registration, limit *Limit) bool {
	return own.size > 0 && own.size <= limit.standing
}

// isPermittedLocked reports whether this gateway has the permission for any limit that a route uses.
func isPermittedLocked(g *gateways) bool {
	for _, s := range g.all {
		if s.routes > 0 && permits(&g.own, s.limit) {
			return true
		}
	}
	return false
}

// strictestLocked returns the limit with the longest registration of those that routes use; nil: none of them has standing leases.
func strictestLocked(g *gateways) *Limit {
	var strictest *Limit
	for _, s := range g.all {
		if s.routes > 0 && (strictest == nil || registrationTime(s.limit) > registrationTime(strictest)) {
			strictest = s.limit
		}
	}
	return strictest
}

// keepLocked returns the milliseconds for which the counts are kept, for all limits that routes use.
func keepLocked(g *gateways) int64 {
	most := int64(0)
	for _, s := range g.all {
		if keep := keepMillis(s.limit); s.routes > 0 && keep > most {
			most = keep
		}
	}
	return most
}

// waitsUntil returns when the wait after the last join ends for a limit: until then a token for each gateway is refilled.
func waitsUntil(own *registration, limit *Limit) int64 {
	return own.joinedAt + longer(refillTime(limit, own.size))
}

// lastUse returns when this gateway stops using standing tokens, of any limit: what it has used must be refilled before Redis forgets it.
func lastUse(own *registration) int64 {
	return own.ends - (own.lasts-registrationSpare.Microseconds())/2
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
