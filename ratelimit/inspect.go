package ratelimit

import (
	"strconv"
	"strings"
	"time"

	"github.com/resilient-gateway/resilience/internal/store"
)

// Admin reads and deletes single buckets. That is rare, so it asks Redis by another script, and changes nothing of how requests do.

// bucketScript returns the value of a bucket, the microseconds since its level was written, and Redis's clock. With "delete" it deletes it.
var bucketScript = store.NewScript(`
local t = redis.call('TIME')
local now = string.format('%.0f', t[1] * 1000000 + t[2])
local value = redis.call('GET', KEYS[1])
if ARGV[1] == 'delete' then
	redis.call('DEL', KEYS[1])
end
if not value then
	return now .. ' 0'
end
if string.find(value, '[^%w |:_.+-]') or #value > 8192 then
	return now .. ' 2'
end
return now .. ' 1 ' .. value
`)

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
}

// ViewBucket returns what is known of the bucket with a key, which has the level of a limit with a name. The key is that in Redis without
// the prefix of all keys of the scope.
func ViewBucket(l *Limiter, key, name string, limit *Limit, deadline time.Time) (*BucketView, error) {
	view := &BucketView{}
	setView(view, limit, limit.full, 0)
	viewHeld(l, view, key, limit)
	if l.Store == nil {
		return view, nil
	}
	answer, err := runBucketScript(l, key, "read", deadline)
	if err != nil {
		return nil, err
	}
	return view, viewAnswer(view, answer, name, limit)
}

// DeleteBucket makes the bucket with a key full, and forgets what this gateway knows of it. Other gateways notice within a second.
func DeleteBucket(l *Limiter, key string, deadline time.Time) error {
	if l.Store != nil {
		if _, err := runBucketScript(l, key, "delete", deadline); err != nil {
			return err
		}
	}
	forgetBucket(l, key)
	return nil
}

func runBucketScript(l *Limiter, key, do string, deadline time.Time) (string, error) {
	call := &store.Call{Script: bucketScript, Number: 1, Words: []string{store.Word(l.PlanPrefix + key), store.Word(do)}}
	l.Store.Run([]*store.Call{call}, deadline)
	return strings.TrimSpace(call.Answer), call.Err
}

// viewAnswer reads the script's answer.
func viewAnswer(view *BucketView, answer, name string, limit *Limit) error {
	fields := strings.SplitN(answer, " ", 3)
	if len(fields) < 2 || fields[1] == "2" {
		return ErrNotABucket
	}
	if fields[1] == "0" {
		view.Stored = false
		setView(view, limit, limit.full, 0)
		return nil
	}
	now, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil || len(fields) < 3 {
		return ErrNotABucket
	}
	level, at, period, leased, found := levelIn(fields[2], name, now)
	if !found {
		setView(view, limit, limit.full, 0) // a level that the value lacks is full
		return nil
	}
	if period <= 0 {
		return ErrNotABucket
	}
	view.Stored = true
	b := bucket{level: level, at: at, period: period}
	refilled := b.refilled(limit, now)
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
func viewHeld(l *Limiter, view *BucketView, key string, limit *Limit) {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	now := l.Now()
	if lease := peekLocked(l, key); lease != nil && lease.limit == limit {
		setHeld(view, &lease.Grant, now)
		if l.Store == nil && lease.bucket.period != 0 {
			view.Stored = true
			setView(view, limit, lease.bucket.refilled(limit, now), 0)
		}
	}
	for levels, table := range l.bucketTables {
		lease := peekBucketLocked(table, key)
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

// bucketPrefix is what the keys of the table lack of a key of the scope.
const bucketPrefix = "bucket:"

// peekLocked returns the lease of a key of the scope, or nil, and changes nothing.
func peekLocked(l *Limiter, key string) *Lease {
	if !strings.HasPrefix(key, bucketPrefix) {
		return nil
	}
	name := key[len(bucketPrefix):]
	if lease := l.recent[name]; lease != nil {
		return lease
	}
	return l.previous[name]
}

func peekBucketLocked(table *bucketTable, key string) *bucketLease {
	if lease := table.recent[key]; lease != nil {
		return lease
	}
	return table.previous[key]
}

// forgetBucket drops what this gateway knows of a bucket. Grants of clients may still refer to a lease, so it is emptied too.
func forgetBucket(l *Limiter, key string) {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	now := l.Now()
	if lease := peekLocked(l, key); lease != nil {
		if !lease.common {
			emptyGrantLocked(&lease.Grant)
		}
		delete(l.recent, key[len(bucketPrefix):])
		delete(l.previous, key[len(bucketPrefix):])
	}
	for levels, table := range l.bucketTables {
		lease := peekBucketLocked(table, key)
		if lease == nil {
			continue
		}
		emptyGrantLocked(&lease.Grant) // it stays: a route may share it
		for i, limit := range levels.limits {
			lease.buckets[i].bucket = bucket{level: limit.full, at: now, period: limit.period}
		}
	}
}

func emptyGrantLocked(g *Grant) {
	g.Tokens = 0
	g.RefuseUntil = 0
	g.NextToken = 0
}
