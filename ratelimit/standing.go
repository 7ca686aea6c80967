package ratelimit

import "time"

// This gateway may use one token of every bucket of a limit without asking: its standing token. Redis keeps it back from everybody else
// (standingscript.go). A request that finds it whole passes at once and joins a batch of reports, which is sent when it is full or 50 ms old.
// A report is what a request of a new client asks: it takes a token from the bucket's level, and that makes the standing token whole again.
// Until then, further requests of the client ask, as they do without standing tokens. If the level does not hold the token, or if there is no
// answer, the report is repeated later, and the standing token stays used. docs/decisions/0023-standing-leases.md says why this is exact.

const (
	reportAfter = 50 * time.Millisecond // age at which a batch of reports is sent
	flushEarly  = 5000                  // microseconds by which a batch may be sent early
	maxOwed     = 2048                  // reports that are repeated together
	maxUsed     = 65536                 // used tokens, above which no further one is used
)

// standing is when this gateway may use the standing tokens of a limit, and which are used. The limiter's Mu guards it.
type standing struct {
	from, until int64            // microseconds; until is 0 while there is no permission
	used        map[string]int64 // by bucket key, of all limits: tokens that are not whole, and the number of the batch that reports them
	limit       *Limit
	routes      int      // that use the limit
	confirmed   bool     // a renewal after the wait has found the registration
	cache       *Cache   // the last one with this limit; nil: no route has used it for long
	open        *batch   // the batch that further uses join; nil: none
	owed        []string // keys whose reports made nothing whole
}

// repeatLater is the number of the batch that reports a token where there is none.
const repeatLater = -1

// initStanding prepares what sends reports in the background. This function is made here, not on a request's path (R10).
func initStanding(l *Limiter) {
	l.gateways.runReports = func() {
		defer func() { recover() }()
		flushReports(l)
	}
}

// standUnderLocked returns the standing tokens of a limit, for one more route that uses it.
func standUnderLocked(l *Limiter, limit *Limit) *standing {
	g := &l.gateways
	if limit == nil || limit.standing == 0 || l.Store == nil || l.Gateways == "" {
		return g.none
	}
	s := standingOfLocked(g, limit)
	if s == nil {
		s = &standing{limit: limit, used: g.used}
		g.all = append(g.all, s)
	}
	s.routes++
	if s.routes == 1 { // the registration may be too short for the limit
		s.confirmed = false
		g.own.room = false
		g.own.due = 0
		startStandingLocked(l)
	}
	return s
}

// standingOfLocked returns the standing tokens of a limit that a route uses or has used, or nil.
func standingOfLocked(g *gateways, limit *Limit) *standing {
	for _, s := range g.all {
		if s.limit == limit {
			return s
		}
	}
	return nil
}

// useStandingLocked uses the standing token of a bucket, and reports whether it was whole.
func useStandingLocked(cache *Cache, key string, now int64) bool {
	s := cache.stands
	if now < s.from || now >= s.until || s.used[key] != 0 {
		return false
	}
	if s.open == nil {
		if len(s.used) >= maxUsed {
			return false
		}
		openReportsLocked(cache, now)
	}
	reportLocked(s.open, key, now)
	return true
}

// reportLocked adds a key to a batch of reports.
func reportLocked(b *batch, key string, now int64) {
	b.cache.stands.used[key] = b.number
	b.reportKeys = append(b.reportKeys, key)
	b.lastPlace--
	if len(b.ids) > b.lastPlace {
		sendReportsLocked(b, now)
	}
}

// NewAllowID returns AllowID for a cache whose limit may have standing leases: a request whose standing token is whole passes at once.
//
// It is a closure, because its frame is most of what such a request costs: in the interpreter each local and each expression costs an allocation,
// also one that is not evaluated, but what is captured costs none.
func NewAllowID(cache *Cache) func(id string, now int64) int64 {
	if cache.limit == nil || cache.limit.standing == 0 {
		return cache.askID
	}
	if cache.maxReportLen < 0 {
		return func(id string, now int64) int64 { return standByKeyLocked(cache, id, now) }
	}
	var ( // guarded by the lock
		key string
		b   *batch
	)
	lock, healthyUntil, s, used, kind, longest := cache.lock, cache.limiter.HealthyUntil, cache.stands, cache.stands.used, cache.keyMaker.Kind, cache.maxReportLen
	return func(id string, now int64) int64 {
		b = cache.reports
		if b == nil || id == "" || len(id) > longest || now >= s.until || now < s.from {
			return allowStandingLocked(cache, id, now)
		}
		key = kind + id
		if used[key] != 0 {
			return AllowID(cache, id, now)
		}
		used[key] = b.number
		b.ids = append(b.ids, id)
		if len(b.ids) > b.lastPlace {
			sendReportsLocked(b, now)
		}
		if now >= *healthyUntil {
			now = 1
		}
		lock.Unlock()
		return now
	}
}

// allowStandingLocked is AllowID while this gateway may have standing tokens. It releases Mu.
func allowStandingLocked(cache *Cache, id string, now int64) int64 {
	s := cache.stands
	switch {
	case now >= s.until:
		return AllowID(cache, id, now)
	case id == "" || len(id) > cache.maxReportLen || s.open != nil && cache.reports == nil:
		return standByKeyLocked(cache, id, now)
	case now < s.from || s.open == nil && len(s.used) >= maxUsed:
		return AllowID(cache, id, now)
	}
	if s.open == nil {
		openReportsLocked(cache, now)
	}
	key := cache.keyMaker.Kind + id
	if s.used[key] != 0 {
		return AllowID(cache, id, now)
	}
	b := s.open
	s.used[key] = b.number
	b.ids = append(b.ids, id)
	if len(b.ids) > b.lastPlace {
		sendReportsLocked(b, now)
	}
	return grantedLocked(cache, now)
}

// standByKeyLocked is allowStandingLocked for a request that cannot join the cache's open batch of reports by its identity. A lease that this
// gateway holds is spent first. It releases Mu.
func standByKeyLocked(cache *Cache, id string, now int64) int64 {
	//lint:ignore S1021 R2
	var key string
	key = bucketKeyLocked(cache, id)
	lease := lookupLocked(cache.limiter, key)
	if lease != nil {
		if verdict := allowByLeaseLocked(cache, lease, id, key, now); verdict != 0 {
			return verdict
		}
	}
	if useStandingLocked(cache, key, now) {
		return grantedLocked(cache, now)
	}
	verdict, err := AllowKey(cache, id, key, now)
	return orUndecided(cache, verdict, err)
}

// openReportsLocked opens a batch of reports.
func openReportsLocked(cache *Cache, now int64) {
	l, s := cache.limiter, cache.stands
	l.batchSeq++
	b := &batch{number: l.batchSeq, cache: cache, limit: cache.limit, newLease: &Lease{limit: cache.limit, common: true}, reports: true}
	b.done.Add(1)
	b.lastPlace = maxBatch - 1
	b.sendAt = now + reportAfter.Microseconds()
	s.open = b
	if cache.maxReportLen >= 0 {
		cache.reports = b
	}
	l.gateways.opened = append(l.gateways.opened, b)
	if !l.gateways.timed {
		l.gateways.timed = true
		time.AfterFunc(reportAfter, l.gateways.runReports)
	}
}

// flushReports sends the open batches of reports that are old enough.
func flushReports(l *Limiter) {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	g := &l.gateways
	g.timed = false
	now := l.Now()
	for len(g.opened) > 0 && now+flushEarly >= g.opened[0].sendAt {
		sendReportsLocked(g.opened[0], now)
	}
	if len(g.opened) > 0 {
		g.timed = true
		time.AfterFunc(time.Duration(g.opened[0].sendAt-now)*time.Microsecond, g.runReports)
	}
}

// sendReportsLocked closes a batch of reports and queues it as a separate trip, so that no request waits for it.
func sendReportsLocked(b *batch, now int64) {
	l := b.cache.limiter
	var others []*batch
	for _, other := range l.gateways.opened {
		if other != b {
			others = append(others, other)
		}
	}
	l.gateways.opened = others
	b.cache.stands.open = nil
	b.cache.reports = nil
	if l.Unavailable.Load() {
		repeatReportsLocked(b)
		return
	}
	b.newLease.prefetchedAt = now
	b.borrowedTotal = l.borrowedTotal
	for _, key := range b.reportKeys {
		if lease := lookupLocked(l, key); lease != nil {
			reportKnownLocked(l, b, key, lease, len(b.keys), now)
		} else {
			insertLocked(l, key, b.newLease)
		}
		b.keys = append(b.keys, key)
	}
	l.waiting++
	l.pending = append(l.pending, []*batch{b})
	if maySendLocked(l, now) {
		startWorkerLocked(l, now)
	}
}

// reportKnownLocked is askForKnownLocked for a report. If the client is so busy that its next request will ask for a lease, the report, which is
// sent later, asks for none: the client may have moved to another gateway, and the lease would be lost to it.
func reportKnownLocked(l *Limiter, b *batch, key string, lease *Lease, place int, now int64) {
	if lease.common || lease.limit != b.limit || !isBusyLocked(lease, now) {
		askForKnownLocked(l, b, key, lease, place, now)
		return
	}
	lease.requests++
	if arg := argOnlyLocked(lease, b, place, now); arg != askOne {
		addArgLocked(b, lease, arg, false, place)
	}
}

// isBusyLocked reports whether a key is asked for so often that its next request will ask for a lease.
func isBusyLocked(lease *Lease, now int64) bool {
	return now-lease.prefetchedAt < 2*leaseMicros && lease.shortUse+lease.requests+lease.size-lease.Tokens > smallUse
}

// applyReportsLocked makes those standing tokens whole whose reports took a token from the level. No answer after the last use does.
func applyReportsLocked(l *Limiter, b *batch, now int64) {
	if b.err != nil || now >= b.cache.stands.until {
		repeatReportsLocked(b)
		return
	}
	used, charged := l.gateways.used, l.gateways.charged
	for i, key := range b.keys {
		if used[key] != b.number {
			continue
		}
		if !b.allGranted && b.answers[i] != plenty {
			lease := lookupLocked(l, key)
			if parseAnswer(b.answers[i]).taken < 1 {
				repeatReportLocked(b.cache.stands, key)
				continue
			}
			if lease != nil {
				lease.RefuseUntil = 0 // there is a token: the standing one
			}
		}
		delete(used, key)
		if len(charged) > 0 {
			delete(charged, key)
		}
	}
}

// repeatReportsLocked repeats the reports of a batch later.
func repeatReportsLocked(b *batch) {
	s := b.cache.stands
	for _, key := range b.reportKeys {
		if s.used[key] == b.number {
			repeatReportLocked(s, key)
		}
	}
	for _, id := range b.ids {
		key := b.cache.keyMaker.Kind + id
		if s.used[key] == b.number {
			repeatReportLocked(s, key)
		}
	}
}

func repeatReportLocked(s *standing, key string) {
	s.used[key] = repeatLater
	s.owed = append(s.owed, key)
}

// repeatOwedLocked repeats reports that made nothing whole.
func repeatOwedLocked(l *Limiter, now int64) {
	if l.Unavailable.Load() {
		return
	}
	for _, s := range l.gateways.all {
		if s.routes == 0 && now >= s.until {
			s.cache = nil
			moveOwedLocked(&l.gateways, s)
		}
		repeatOwedOfLocked(s, now)
	}
}

// moveOwedLocked moves what is owed under a limit that no route uses any more to the limit that has replaced it. Of several it could be any,
// and the wrong one would change the terms of a bucket: then these clients only ask, as without standing tokens.
func moveOwedLocked(g *gateways, s *standing) {
	var heir *standing
	for _, other := range g.all {
		if other.routes > 0 {
			if heir != nil {
				return
			}
			heir = other
		}
	}
	if heir != nil {
		heir.owed = append(heir.owed, s.owed...)
		s.owed = nil
	}
}

func repeatOwedOfLocked(s *standing, now int64) {
	if now < s.from || now >= s.until || len(s.owed) == 0 {
		return
	}
	owed := s.owed
	s.owed = nil
	if len(owed) > maxOwed {
		s.owed = owed[maxOwed:]
		owed = owed[:maxOwed]
	}
	for _, key := range owed {
		if s.open == nil {
			openReportsLocked(s.cache, now)
		}
		reportLocked(s.open, key, now)
	}
}

// isWholeLocked reports whether this gateway may use the standing token of a bucket now.
func isWholeLocked(cache *Cache, key string, now int64) bool {
	s := cache.stands
	return now >= s.from && now < s.until && s.used[key] == 0
}

// chargeStandingLocked takes a used standing token from the bucket in this process, which decides while Redis is not asked.
func chargeStandingLocked(l *Limiter, lease *Lease, key string, now int64) {
	if l.gateways.charged[key] {
		return
	}
	l.gateways.charged[key] = true
	lease.bucket.take(lease.limit, 1, now)
}
