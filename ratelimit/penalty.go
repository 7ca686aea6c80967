package ratelimit

import (
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/resilient-gateway/resilience/internal/store"
)

// Penalty says which clients are refused altogether for a while: those whose requests the limits refuse again and again. It is immutable and
// may be shared.
type Penalty struct {
	threshold  int64 // the refusals within the time that begin a penalty
	time, most int64 // the length of the first penalty, and of the longest one; microseconds
	text       string
}

// NewPenalty returns the rule that a client with a number of refusals within a time is refused for this time, doubled at each repeat up to
// the longest.
func NewPenalty(refusals int64, within, longest time.Duration) *Penalty {
	p := &Penalty{threshold: refusals, time: within.Microseconds(), most: longest.Microseconds()}
	p.text = " " + digits(p.threshold) + " " + digits(p.time) + " " + digits(p.most)
	return p
}

// PenaltyName is the limit that a Refusal names while the client is penalised.
const PenaltyName = "penalty"

var penalizeScript = store.NewScript(penalize)

// Refusals are counted in Redis, but no request waits for that: they are reported in bulk.
const (
	reportEvery    = 100 * time.Millisecond // and this long penalties that began elsewhere may remain unknown, where there are leases
	reportAgain    = 20000                  // microseconds between two reports, where a client has enough refusals for a penalty
	clientsPerCall = 64
	callsPerReport = 16
	halfOfClients  = 16384
)

// clientPenalty is what this gateway knows of one client. The limiter's Mu guards it.
type clientPenalty struct {
	key    string // in Redis, without the prefix of all keys
	rule   *Penalty
	ends   int64    // until then, all requests are refused
	grants []*Grant // by which the fast path may admit requests of the client

	unreported int64 // refusals that Redis does not know of
	listed     bool  // it is among the refused clients

	// While Redis is not asked, this process counts like the script.
	length, counted, begun int64
}

// penalties is the clients of a limiter whose plans have a penalty, and the report of their refusals. The limiter's Mu guards it.
type penalties struct {
	clients, olderClients map[string]*clientPenalty // by key, in two generations
	refusedClients        []*clientPenalty          // with unreported refusals
	penaltyNumber         int64                     // of the last penalty that this gateway knows of
	watchUntil            int64                     // when the last lease ends of which a penalised client may have tokens
	reportTimeout         *atomic.Int64             // how long a report waits for Redis, microseconds
	reportedAt            int64
	reportArmed           bool // a timer is set
	reporting             bool
	reportNow             func()
	reportByTimer         func()
}

func newPenalties() penalties {
	return penalties{clients: map[string]*clientPenalty{}, olderClients: map[string]*clientPenalty{}, reportTimeout: &atomic.Int64{}}
}

// initReports makes the functions of reports here, not on a request's path (R10).
func initReports(l *Limiter) {
	l.reportNow = func() {
		defer func() { recover() }()
		reportRefusals(l, false)
	}
	l.reportByTimer = func() {
		defer func() { recover() }()
		reportRefusals(l, true)
	}
}

// clientOfPlanLocked returns the client of a request; nil: it has no penalty, or there is no room for another client.
func clientOfPlanLocked(cache *Cache, plan *Plan, now int64) *clientPenalty {
	if plan.Penalty == nil {
		return nil
	}
	l := cache.limiter
	c := knownClientLocked(l, plan.Client)
	if c == nil {
		if len(l.clients) >= halfOfClients && !forgetClientsLocked(l, now) {
			return nil
		}
		c = &clientPenalty{key: plan.Client}
		l.clients[plan.Client] = c
	}
	c.rule = plan.Penalty
	l.reportTimeout.Store(cache.timeout)
	return c
}

// knownClientLocked returns the client of a key, or nil.
func knownClientLocked(l *Limiter, key string) *clientPenalty {
	if c := l.clients[key]; c != nil {
		return c
	}
	c := l.olderClients[key]
	if c != nil && len(l.clients) < halfOfClients {
		l.clients[key] = c
		delete(l.olderClients, key)
	}
	return c
}

// forgetClientsLocked makes room for another client, and reports whether there is any. With Redis, a client that is forgotten costs at most
// another call. Without, only clients are forgotten that have neither a penalty nor refusals that count.
func forgetClientsLocked(l *Limiter, now int64) bool {
	if !l.Unavailable.Load() || len(l.olderClients) == 0 {
		l.olderClients = l.clients
		l.clients = map[string]*clientPenalty{}
		return true
	}
	seen, before := 0, len(l.clients)
	for key, c := range l.clients {
		if c.unreported == 0 && now >= c.ends+2*c.length && (c.counted == 0 || now-c.begun >= c.rule.time) {
			delete(l.clients, key)
		}
		seen++
		if seen == 16 {
			break
		}
	}
	return len(l.clients) < before
}

// penalisedLocked returns how long the client is penalised, in microseconds.
func penalisedLocked(c *clientPenalty, now int64) int64 {
	if c == nil || now >= c.ends {
		return 0
	}
	return c.ends - now
}

// penaliseLocked refuses the client's requests until a time. The fast path asks again.
func penaliseLocked(c *clientPenalty, until int64) {
	if c == nil || until <= c.ends {
		return
	}
	c.ends = until
	for _, g := range c.grants {
		g.Until = 0
	}
	c.grants = nil
}

// letPassLocked notes that the fast path may admit requests of the client by a grant. It reports whether it may.
func letPassLocked(c *clientPenalty, g *Grant, now int64) bool {
	if c == nil {
		return true
	}
	if now < c.ends {
		return false // since the request was sent
	}
	for _, other := range c.grants {
		if other == g {
			return true
		}
	}
	c.grants = append(c.grants, g)
	return true
}

// countRefusalLocked counts a refusal by a limit of the client. Refusals during a penalty do not count.
func countRefusalLocked(l *Limiter, t *taking, refusal Refusal, now int64) {
	c := t.client
	if c == nil || now < c.ends || refusal.Limit == PenaltyName || t.plan.Draws[refusal.Draw].Everybody {
		return
	}
	if l.Unavailable.Load() {
		countHereLocked(c, 1, now)
		return
	}
	c.unreported++
	if !c.listed {
		c.listed = true
		l.refusedClients = append(l.refusedClients, c)
	}
	if c.unreported >= c.rule.threshold && !l.reporting && now-l.reportedAt >= reportAgain {
		l.reporting = true
		l.reportedAt = now
		go l.reportNow()
	}
	armReportLocked(l)
}

// countHereLocked is what the script does, in this process.
func countHereLocked(c *clientPenalty, added, now int64) {
	if now < c.ends {
		return
	}
	if now >= c.ends+2*c.length {
		c.length = 0
	}
	if c.counted == 0 || now-c.begun >= c.rule.time {
		c.counted = 0
		c.begun = now
	}
	c.counted += added
	if c.counted < c.rule.threshold {
		return
	}
	c.counted = 0
	length := 2 * c.length
	if c.length == 0 {
		length = c.rule.time
	}
	if length > c.rule.most {
		length = c.rule.most
	}
	c.length = length
	penaliseLocked(c, now+length)
}

// watchPenaltiesLocked watches for penalties while a client may spend tokens of these leases without asking Redis.
func watchPenaltiesLocked(l *Limiter, leases []*bucketLease, now int64) {
	for _, lease := range leases {
		if lease.Tokens > 0 && lease.ends > l.watchUntil {
			l.watchUntil = lease.ends
		}
	}
	if now < l.watchUntil {
		armReportLocked(l)
	}
}

// armReportLocked sets the timer of the next report.
func armReportLocked(l *Limiter) {
	if l.reportArmed || l.Unavailable.Load() && len(l.refusedClients) == 0 {
		return
	}
	l.reportArmed = true
	time.AfterFunc(reportEvery, l.reportByTimer)
}

// report is a call of the script penalize, and the refusals that it reports.
type report struct {
	call    *store.Call
	clients []*clientPenalty
	counts  []int64
}

// reportRefusals reports refusals, and learns of penalties that began elsewhere. One report is under way at a time. A report that does not
// come from the timer was announced by its caller.
func reportRefusals(l *Limiter, fromTimer bool) {
	if fromTimer && !claimReport(l) {
		return
	}
	defer endReport(l)
	reports := takeReports(l)
	if len(reports) == 0 {
		return
	}
	var calls []*store.Call
	for _, r := range reports {
		calls = append(calls, r.call)
	}
	l.Store.Run(calls, time.Now().Add(time.Duration(l.reportTimeout.Load())*time.Microsecond))
	applyReports(l, reports)
}

// claimReport begins the report of the timer. It reports false if another is under way, and sets the timer again.
func claimReport(l *Limiter) bool {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	l.reportArmed = false
	if l.reporting {
		armReportLocked(l)
		return false
	}
	l.reporting = true
	l.reportedAt = l.Now()
	return true
}

// endReport lets the next report begin, whatever has happened to this one.
func endReport(l *Limiter) {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	l.reporting = false
	if len(l.refusedClients) > 0 || l.reportedAt < l.watchUntil && !l.closed {
		armReportLocked(l)
	}
}

// takeReports makes the calls of a report. While Redis is unavailable it makes none, and counts in this process.
func takeReports(l *Limiter) []*report {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	now := l.reportedAt
	reports := []*report{}
	clients := l.refusedClients
	most := clientsPerCall * callsPerReport
	if len(clients) > most {
		l.refusedClients = clients[most:]
		clients = clients[:most]
	} else {
		l.refusedClients = nil
	}
	if len(clients) == 0 && now >= l.watchUntil {
		return reports
	}
	for first := true; first || len(clients) > 0; first = false {
		n := len(clients)
		if n > clientsPerCall {
			n = clientsPerCall
		}
		r := newReportLocked(l, clients[:n])
		clients = clients[n:]
		if !l.Unavailable.Load() {
			reports = append(reports, r)
			continue
		}
		for i, c := range r.clients {
			countHereLocked(c, r.counts[i], now)
		}
	}
	return reports
}

// newReportLocked makes the call that reports the refusals of some clients. A repeated call counts nothing.
func newReportLocked(l *Limiter, clients []*clientPenalty) *report {
	r := &report{clients: clients}
	keys := []string{store.Word(l.PlanPrefix + "penalties")}
	args := []string{store.Word(digits(l.penaltyNumber))}
	again := []string{}
	for _, c := range clients {
		keys = append(keys, store.Word(l.PlanPrefix+c.key))
		args = append(args, store.Word(digits(c.unreported)+c.rule.text))
		again = append(again, store.Word("0"+c.rule.text))
		r.counts = append(r.counts, c.unreported)
		c.unreported = 0
		c.listed = false
	}
	r.call = &store.Call{Script: penalizeScript, Number: len(keys), Words: append(keys, args...), Once: len(clients) > 0}
	r.call.Again = func(call *store.Call) { copy(call.Words[call.Number+1:], again) }
	return r
}

func applyReports(l *Limiter, reports []*report) {
	now := l.Now()
	l.Mu.Lock()
	defer l.Mu.Unlock()
	for _, r := range reports {
		applyReportLocked(l, r, now)
	}
}

// applyReportLocked applies the answer to a report. Refusals that could not be reported count in this process.
func applyReportLocked(l *Limiter, r *report, now int64) {
	words := strings.Fields(r.call.Answer)
	if r.call.Err != nil || len(words) <= len(r.clients) {
		for i, c := range r.clients {
			countHereLocked(c, r.counts[i], now)
		}
		return
	}
	if number, err := strconv.ParseInt(words[0], 10, 64); err == nil {
		l.penaltyNumber = number
	}
	for i, c := range r.clients {
		penaliseForLocked(c, words[1+i], now)
	}
	for i := len(words) - 1; i > len(r.clients); i-- { // the latest is the first, and counts
		left, key, _ := strings.Cut(words[i], ":")
		c := knownClientLocked(l, strings.TrimPrefix(key, l.PlanPrefix))
		if left == "0" {
			endPenaltyLocked(c)
		}
		penaliseForLocked(c, left, now)
	}
}

// penaliseForLocked penalises a client for what the script says is left.
func penaliseForLocked(c *clientPenalty, left string, now int64) {
	if micros, err := strconv.ParseInt(left, 10, 64); err == nil && micros > 0 {
		penaliseLocked(c, now+micros)
	}
}
