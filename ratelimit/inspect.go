package ratelimit

import (
	"strconv"
	"strings"
	"time"

	"github.com/resilient-gateway/resilience/internal/store"
)

// Admin reads and deletes single buckets, and the penalties of their clients. That is rare, so it asks Redis by another script, and changes
// nothing of how requests do.

// inspect returns Redis's clock, the microseconds that are left of the client's penalty, what there is of the bucket, and its value: 0
// if there is no bucket, 1 if there is one, 2 if the key holds something else. With "delete" it deletes the bucket and ends the penalty.
//
//	KEYS[1]      the bucket
//	KEYS[2]      the client's penalty, and KEYS[3] the latest penalties; not there if the client can have none
//	ARGV[1]      read or delete
const inspect = `
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local value = redis.call('GET', KEYS[1])
` + penaltyOf + endPenalty + `
local left = KEYS[2] and penaltyLeft(ARGV[1] == 'delete') or 0
if ARGV[1] == 'delete' then
	redis.call('DEL', KEYS[1])
end
local answer = string.format('%.0f %.0f', now, left)
if not value then
	return answer .. ' 0'
end
if string.find(value, '[^%w |:_.+-]') or #value > 8192 then
	return answer .. ' 2'
end
return answer .. ' 1 ' .. value
`

var inspectScript = store.NewScript(inspect)

// Inspected is a bucket that admin asks for, and the penalty of its client. Keys are those in Redis without the prefix of all keys of the
// scope.
type Inspected struct {
	Key     string // of the bucket's value
	Client  string // whose leases under the block's own limit alone are of this value; "": nobody's are
	Name    string // of the limit of which the value has a level
	Limit   *Limit // nil: it is not asked for the level
	Penalty string // of the penalty; "": the client can have none
}

// BucketView is what is known of one bucket under one limit.
type BucketView struct {
	Stored   bool  // Redis, or this process, has the bucket; otherwise it is full
	Capacity int64 // tokens
	Tokens   int64 // left, without those that gateways hold
	Leased   int64 // tokens that gateways hold
	Next     int64 // microseconds until another token; 0: it is full
	Full     int64 // microseconds until it is full

	Held        int64 // tokens that this gateway holds
	RefuseUntil int64 // microseconds for which this gateway refuses without asking
	Penalty     int64 // microseconds for which all requests of the client are refused
}

// Deleted says what DeleteBucket found.
type Deleted struct {
	Bucket  bool // there was one that was not full
	Penalty bool // the client was penalised
}

// ViewBucket returns what is known of a bucket, and of the penalty of its client.
func ViewBucket(l *Limiter, one *Inspected, deadline time.Time) (*BucketView, error) {
	view := &BucketView{}
	if one.Limit != nil {
		setView(view, one.Limit, one.Limit.full, 0)
		viewHeld(l, view, one)
	}
	view.Penalty = penaltyKnown(l, one.Penalty)
	if l.Store == nil {
		return view, nil
	}
	answer, err := runInspect(l, one, "read", deadline)
	if err != nil {
		return nil, err
	}
	if answer.penalty > view.Penalty {
		view.Penalty = answer.penalty
	}
	if one.Limit == nil {
		return view, nil
	}
	return view, viewAnswer(view, answer, one.Name, one.Limit)
}

// DeleteBucket makes a bucket full, ends the penalty of its client, and forgets what this gateway knows of both. Other gateways notice a full
// bucket within a second, and the end of a penalty as endPenalty says.
func DeleteBucket(l *Limiter, one *Inspected, deadline time.Time) (Deleted, error) {
	deleted := Deleted{}
	if l.Store != nil {
		answer, err := runInspect(l, one, "delete", deadline)
		if err != nil {
			return deleted, err
		}
		deleted.Bucket = answer.state != noBucket
		deleted.Penalty = answer.penalty > 0
	}
	notFull := forgetBucket(l, one)
	penalised := forgetPenalty(l, one.Penalty)
	deleted.Bucket = deleted.Bucket || l.Store == nil && notFull
	deleted.Penalty = deleted.Penalty || penalised
	return deleted, nil
}

// inspection is an answer of the script inspect.
type inspection struct {
	now, penalty int64
	state        string
	value        string
}

// The states of an inspection.
const (
	noBucket   = "0"
	isBucket   = "1"
	notABucket = "2"
)

func runInspect(l *Limiter, one *Inspected, do string, deadline time.Time) (inspection, error) {
	words := []string{store.Word(l.PlanPrefix + one.Key)}
	if one.Penalty != "" {
		words = append(words, store.Word(l.PlanPrefix+one.Penalty), store.Word(l.PlanPrefix+"penalties"))
	}
	call := &store.Call{Script: inspectScript, Number: len(words), Words: append(words, store.Word(do))}
	l.Store.Run([]*store.Call{call}, deadline)
	if call.Err != nil {
		return inspection{}, call.Err
	}
	fields := strings.SplitN(strings.TrimSpace(call.Answer), " ", 4)
	if len(fields) < 3 {
		return inspection{}, errBadReply
	}
	answer := inspection{now: number(fields[0]), penalty: number(fields[1]), state: fields[2]}
	if len(fields) > 3 {
		answer.value = fields[3]
	}
	return answer, nil
}

// viewAnswer reads the script's answer.
func viewAnswer(view *BucketView, answer inspection, name string, limit *Limit) error {
	if answer.state == noBucket {
		view.Stored = false
		setView(view, limit, limit.full, 0)
		return nil
	}
	if answer.state != isBucket || answer.now == 0 {
		return ErrNotABucket
	}
	level, at, period, leased, found := levelIn(answer.value, name, answer.now)
	if !found {
		setView(view, limit, limit.full, 0) // a level that the value lacks is full
		return nil
	}
	if period <= 0 {
		return ErrNotABucket
	}
	view.Stored = true
	b := bucket{level: level, at: at, period: period}
	refilled := b.refilled(limit, answer.now)
	if most := limit.full - leased*limit.period; refilled > most {
		refilled = most
	}
	setView(view, limit, refilled, leased)
	return nil
}

// levelIn finds the level of a limit in a bucket's value, and the tokens of its leases that have not ended.
func levelIn(value, name string, now int64) (level, at, period, leased int64, found bool) {
	parts := strings.Split(value, "|")
	head := strings.Fields(parts[0])
	if len(head) < 3 {
		return 0, 0, 0, 0, false
	}
	at = number(head[1])
	place := byte('A')
	if name == OwnLimit {
		level = number(head[0])
		periodText, _, _ := strings.Cut(head[2], "+") // the joins follow
		period = number(periodText)
		found = period > 0
	}
	next := byte('B')
	for _, part := range parts[1:] {
		words := strings.Fields(part)
		if len(words) == 0 || words[0] == OwnLimit {
			continue
		}
		if words[0] == name && len(words) == 5 {
			level = number(words[1])
			period = number(words[2])
			place = next
			found = true
		}
		next++
	}
	for _, lease := range head[3:] {
		words := strings.Split(lease, ":")
		if len(words) < 2 || number(words[0]) <= now {
			continue
		}
		payers := "A"
		if len(words) > 2 {
			payers = words[2]
		}
		if strings.IndexByte(payers, place) >= 0 {
			leased += number(words[1])
		}
	}
	return level, at, period, leased, found
}

func number(text string) int64 {
	n, _ := strconv.ParseInt(text, 10, 64)
	return n
}

// setView says what is left at a level.
func setView(view *BucketView, limit *Limit, level, leased int64) {
	debt := int64(0)
	if level < 0 {
		debt = -level
		level = 0
	}
	view.Capacity = limit.full / limit.period
	view.Tokens = level / limit.period
	view.Leased = leased
	view.Next = 0
	view.Full = 0
	if level < limit.full-leased*limit.period {
		view.Next = (limit.period + debt - level%limit.period + limit.refill - 1) / limit.refill
		view.Full = (limit.full + debt - leased*limit.period - level + limit.refill - 1) / limit.refill
	}
}

// viewHeld says what this gateway holds of a bucket, and what it knows of it where there is no Redis.
func viewHeld(l *Limiter, view *BucketView, one *Inspected) {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	now := l.Now()
	limit := one.Limit
	if lease := peekLocked(l, one.Client); lease != nil && lease.limit == limit {
		setHeld(view, &lease.Grant, now)
		if l.Store == nil && lease.bucket.period != 0 {
			view.Stored = true
			setView(view, limit, lease.bucket.refilled(limit, now), 0)
		}
	}
	for levels, table := range l.bucketTables {
		lease := peekBucketLocked(table, one.Key)
		if lease == nil {
			continue
		}
		setHeld(view, &lease.Grant, now)
		for i := range levels.limits {
			if l.Store == nil && levels.limits[i] == limit {
				view.Stored = true
				setView(view, limit, lease.buckets[i].bucket.refilled(limit, now), 0)
			}
		}
	}
}

func setHeld(view *BucketView, g *Grant, now int64) {
	if g.Tokens > 0 && now < g.ends {
		view.Held += g.Tokens
	}
	if wait := g.RefuseUntil - now; wait > view.RefuseUntil {
		view.RefuseUntil = wait
	}
}

// peekLocked returns the lease of a client, or nil, and changes nothing.
func peekLocked(l *Limiter, client string) *Lease {
	if lease := l.recent[client]; lease != nil {
		return lease
	}
	return l.previous[client]
}

func peekBucketLocked(table *bucketTable, key string) *bucketLease {
	if lease := table.recent[key]; lease != nil {
		return lease
	}
	return table.previous[key]
}

// forgetBucket drops what this gateway knows of a bucket, and reports whether that was not full. Grants of clients may still refer to a lease,
// so it is emptied too.
func forgetBucket(l *Limiter, one *Inspected) bool {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	now := l.Now()
	notFull := false
	if lease := peekLocked(l, one.Client); lease != nil {
		notFull = isNotFull(&lease.bucket, lease.limit, now)
		if !lease.common {
			emptyGrantLocked(&lease.Grant)
		}
		delete(l.recent, one.Client)
		delete(l.previous, one.Client)
	}
	for levels, table := range l.bucketTables {
		lease := peekBucketLocked(table, one.Key)
		if lease == nil {
			continue
		}
		emptyGrantLocked(&lease.Grant) // it stays: a route may share it
		for i, limit := range levels.limits {
			notFull = notFull || isNotFull(&lease.buckets[i].bucket, limit, now)
			lease.buckets[i].bucket = bucket{level: limit.full, at: now, period: limit.period}
		}
	}
	return notFull
}

func isNotFull(b *bucket, limit *Limit, now int64) bool {
	return b.period != 0 && b.refilled(limit, now) < limit.full
}

func emptyGrantLocked(g *Grant) {
	g.Tokens = 0
	g.RefuseUntil = 0
	g.NextToken = 0
}
