package truth

import (
	"fmt"
	"sort"
	"time"
)

// What the machine may add to a time that is promised: it is shared, and its clocks are read on the other side of a
// connection.
const (
	jitter  = 300 * time.Millisecond                    // between a verdict and the upstream's seeing of it
	longest = 150 * time.Millisecond                    // that the circuit's upstream takes at most
	memory  = resetTimeout + probeTimeout + time.Second // after a failure, until the circuit is closed if there was no other
)

// judge returns everything in the history that breaks a promise. Nothing is added to it any more.
func (h *history) judge() []string {
	sort.Slice(h.arrivals, func(i, j int) bool { return h.arrivals[i].at < h.arrivals[j].at })
	var wrong []string
	wrong = append(wrong, h.judgeLimits()...)
	wrong = append(wrong, h.judgeOpening()...)
	wrong = append(wrong, h.judgeRefusals()...)
	wrong = append(wrong, h.judgeAnswers()...)
	return wrong
}

// judgeLimits: never more. Every key has a bucket that is filled as the promise says, and each request takes a token. It
// must never be empty.
func (h *history) judgeLimits() []string {
	type name struct {
		kind kind
		key  string
	}
	byKey := map[name][]arrival{}
	for _, p := range h.arrivals {
		if _, limited := limits[p.kind]; limited {
			k := name{p.kind, p.key}
			byKey[k] = append(byKey[k], p)
		}
	}
	var wrong []string
	h.spare = map[kind]float64{}
	for k, arrivals := range byKey {
		l := limits[k.kind]
		b := newBucket(l)
		b.walk(arrivals, h.changes())
		h.judges("buckets")
		if spare, judged := h.spare[k.kind]; !judged || b.least < spare {
			h.spare[k.kind] = b.least
		}
		if slack := l.rate*jitter.Seconds() + 1; b.least < -slack {
			wrong = append(wrong, fmt.Sprintf("%s, key %s: %.0f more than promised, at %s", k.kind, k.key, -b.least, b.when))
		}
	}
	return wrong
}

// change is a moment at which what is promised changes.
type change struct {
	at      time.Duration
	gateway int
	alone   bool // from then on the gateway is under a cloud
	joins   bool // or no more
	fresh   bool // a full bucket is allowed
}

// changes returns what the clouds and the losses allow. A gateway under a cloud has its own bucket, which starts from
// what it knew; one that was started under it starts with a full one.
func (h *history) changes() []change {
	var all []change
	for _, c := range merge(h.clouds) {
		all = append(all, change{at: c.from, gateway: c.gateway, alone: true}, change{at: c.to, gateway: c.gateway, joins: true})
		if c.reborn {
			all = append(all, change{at: c.from, fresh: true})
		}
	}
	for _, at := range h.losses {
		all = append(all, change{at: at, fresh: true})
	}
	sort.SliceStable(all, func(i, j int) bool { return all[i].at < all[j].at })
	return all
}

// merge makes one cloud of those of a gateway that meet.
func merge(clouds []span) []span {
	sorted := append([]span{}, clouds...)
	sort.Slice(sorted, func(i, j int) bool { return sorted[i].from < sorted[j].from })
	last := map[int]int{} // of a gateway, in merged
	var merged []span
	for _, c := range sorted {
		i, known := last[c.gateway]
		if known && c.from <= merged[i].to {
			merged[i].to = max(merged[i].to, c.to)
			merged[i].reborn = merged[i].reborn || c.reborn
			continue
		}
		last[c.gateway] = len(merged)
		merged = append(merged, c)
	}
	return merged
}

// bucket is what is promised for one key.
type bucket struct {
	limit
	at     time.Duration
	level  float64      // of all buckets there are: Redis's, and those of gateways under a cloud
	shared float64      // of Redis's alone, which does not hear of what passes under a cloud
	alone  map[int]bool // the gateways under one
	least  float64
	when   time.Duration // of the least
}

func newBucket(l limit) *bucket {
	return &bucket{limit: l, level: l.capacity, shared: l.capacity, least: l.capacity, alone: map[int]bool{}}
}

func (b *bucket) pass(at time.Duration) {
	refill := b.rate * (at - b.at).Seconds()
	b.shared = min(b.capacity, max(0, b.shared)+refill)
	b.level = max(b.level, min(b.capacity, b.level+refill*float64(1+len(b.alone)))) // what a change allowed on top stays
	b.at = at
}

func (b *bucket) take(p arrival) {
	b.pass(p.at)
	b.level--
	if !b.alone[p.gateway] {
		b.shared--
	}
	if b.level < b.least {
		b.least, b.when = b.level, p.at
	}
}

func (b *bucket) change(c change) {
	b.pass(c.at)
	switch {
	case c.alone:
		b.alone[c.gateway] = true
		// The gateway's own bucket: at the level that it knew of, at most a second ago, before another took a lease.
		b.level += min(b.capacity, max(0, b.shared)+b.rate+b.capacity/8)
	case c.joins:
		delete(b.alone, c.gateway)
	case c.fresh:
		b.level += b.capacity
		b.shared = b.capacity
	}
}

func (b *bucket) walk(arrivals []arrival, changes []change) {
	for _, p := range arrivals {
		for len(changes) > 0 && changes[0].at <= p.at {
			b.change(changes[0])
			changes = changes[1:]
		}
		b.take(p)
	}
}

// clear reports whether every gateway was of one mind with Redis all the time.
func (h *history) clear(from, to time.Duration) bool {
	for _, c := range h.clouds {
		if c.from < to && c.to > from {
			return false
		}
	}
	for _, at := range h.losses {
		if at > from && at < to {
			return false
		}
	}
	return true
}

// judgeOpening: one verdict for the fleet. After a failure nothing passes until the reset time is over, and from then on
// no more probes at once than the limit, until it is closed.
func (h *history) judgeOpening() []string {
	var all []arrival
	for _, p := range h.arrivals {
		if p.kind == circuit {
			all = append(all, p)
		}
	}
	var wrong []string
	for _, f := range all {
		if f.status != 500 || !h.clear(f.done-500*time.Millisecond, f.done+resetTimeout) || !h.counts(f, all) {
			continue
		}
		h.judges("openings")
		refused, over := f.done+100*time.Millisecond+jitter/2, f.done+resetTimeout-longest-jitter/2
		for _, p := range all {
			if p.at > refused && p.at < over {
				wrong = append(wrong, fmt.Sprintf("gateway %d let a request through %s after a failure at %s that gateway %d saw",
					p.gateway, p.at-f.done, f.done, f.gateway))
			}
		}
		if at, n := h.mostProbes(f.done+100*time.Millisecond+jitter/2, all); n > maxProbes {
			wrong = append(wrong, fmt.Sprintf("%d probes at once at %s, after a failure at %s", n, at, f.done))
		}
	}
	return wrong
}

// counts reports whether a failure must have opened the circuit, or found it open. Not where a success may have closed it
// between the failed request's sending and its answer, which is then late; where there was no failure for long, it was
// closed before.
func (h *history) counts(f arrival, all []arrival) bool {
	closed := h.clear(f.done-memory, f.done)
	closes := false
	for _, p := range all {
		if p.status == 500 && p.done >= f.done-memory && p.done < f.done {
			closed = false
		}
		if p.status == 200 && p.done >= f.at && p.done <= f.done {
			closes = true
		}
	}
	if closed {
		h.judges("openings of a closed circuit")
	}
	return closed || !closes
}

// mostProbes returns when the most of them were under way, after the circuit had opened and until it could close.
func (h *history) mostProbes(opened time.Duration, all []arrival) (when time.Duration, most int) {
	type event struct {
		at time.Duration
		n  int
	}
	var events []event
	end := time.Duration(1<<62 - 1)
	var done []time.Duration
	for _, p := range all {
		if p.at < opened || p.status == 0 {
			continue // one whose client went away ends at a time that nobody saw
		}
		events = append(events, event{p.at, 1}, event{p.done, -1})
		if p.status < 500 {
			done = append(done, p.done)
		} else {
			end = min(end, p.done)
		}
	}
	sort.Slice(done, func(i, j int) bool { return done[i] < done[j] })
	if successes <= len(done) {
		end = min(end, done[successes-1])
	}
	if !h.clear(opened, min(end, opened+time.Minute)) {
		return 0, 0
	}
	h.judges("half-open circuits")
	sort.Slice(events, func(i, j int) bool {
		return events[i].at < events[j].at || events[i].at == events[j].at && events[i].n < events[j].n
	})
	n := 0
	for _, e := range events {
		if e.at >= end {
			break
		}
		n += e.n
		if n > most {
			when, most = e.at, n
		}
	}
	return when, most
}

// judgeRefusals: only the upstream's faults count. An open circuit has a failure of the upstream behind it.
func (h *history) judgeRefusals() []string {
	var failures []time.Duration
	for _, p := range h.arrivals {
		if p.kind == circuit && p.status == 500 {
			failures = append(failures, p.done)
		}
	}
	sort.Slice(failures, func(i, j int) bool { return failures[i] < failures[j] })
	var wrong []string
	for _, a := range h.answers {
		if a.kind != circuit || !a.open {
			continue
		}
		h.judges("refusals")
		until := a.sent + a.took
		i := sort.Search(len(failures), func(i int) bool { return failures[i] > a.sent-memory })
		if i < len(failures) && failures[i] <= until || !h.clear(a.sent-memory, until) {
			continue
		}
		wrong = append(wrong, fmt.Sprintf("gateway %d refused a request at %s as if the circuit were open, and no failure was behind it",
			a.gateway, a.sent))
	}
	return wrong
}

// judgeAnswers: never in the way. There is no answer but those that there should be.
func (h *history) judgeAnswers() []string {
	var wrong, late []string
	for _, a := range h.answers {
		switch {
		case h.dead(a) && (a.status == 0 || a.status == 404): // 404: before a new one has its routes
		case a.took > timeout+longest+jitter && a.took > h.mayTake(a):
			late = append(late, fmt.Sprintf("gateway %d took %s to answer %d to a %s request at %s", a.gateway, a.took, a.status, a.kind, a.sent))
		case a.status == 200, a.status == 429 && (a.kind == scarce || a.kind == plenty):
		case a.kind == circuit && (a.status == 404 || a.status == 500 || a.open):
		default:
			wrong = append(wrong, fmt.Sprintf("gateway %d answered %d to a %s request at %s", a.gateway, a.status, a.kind, a.sent))
		}
	}
	// One in a thousand is the machine's: a fault without a remedy delays one in ten.
	if len(late) > len(h.answers)/1000 {
		wrong = append(wrong, late...)
	}
	return wrong
}

// mayTake returns how long an answer may take: a time-out, and what the machine takes, of which requests to the same
// gateway that we have no part in tell.
func (h *history) mayTake(a answer) time.Duration {
	machine := time.Duration(0)
	for _, b := range h.answers {
		if b.kind == plain && b.gateway == a.gateway && b.sent < a.sent+a.took+time.Second && b.sent+b.took > a.sent-time.Second {
			machine = max(machine, b.took)
		}
	}
	return timeout + longest + jitter + machine
}

// dead reports whether the gateway was killed while it had the request, or was not there yet.
func (h *history) dead(a answer) bool {
	for _, c := range h.clouds {
		if c.reborn && c.gateway == a.gateway && c.from <= a.sent+a.took && c.to >= a.sent {
			return true
		}
	}
	return false
}
