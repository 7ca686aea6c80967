package ratelimit

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// standingRules returns a cache of a gateway that may use standing tokens from 100 to 1000. Redis is unavailable, and nothing is sent.
func standingRules(keyMaker KeyMaker) *Cache {
	l := New(Settings{Store: &tripStore{}, Gateways: "gateways", Name: func(key string) string { return key }, Now: func() int64 { return 500 }})
	l.Unavailable.Store(true)
	l.runWorker = func() {}
	l.gateways.timed = true
	cache := NewCache(l, WithStanding(NewLimit(1000, 100, time.Second)), time.Second, keyMaker)
	cache.stands.from, cache.stands.until = 100, 1000
	return cache
}

// An answer makes a token whole only if the report took one, for the use that it reports, and before the last use. A used token is never
// forgotten.
func TestStanding_answers(t *testing.T) {
	for _, row := range []struct {
		name    string
		used    int64 // the number of the batch that reports the token; the answer is to batch 7
		now     int64
		all     bool // every request got its token
		answer  string
		err     error
		becomes int64
		owed    bool
	}{
		{name: "every report took a token", used: 7, now: 999, all: true},
		{name: "this one did, of a bucket that is nearly full", used: 7, now: 999, answer: plenty},
		{name: "of another bucket", used: 7, now: 999, answer: "1:0:0"},
		{name: "the level does not hold one", used: 7, now: 999, answer: "0:0:0", becomes: repeatLater, owed: true},
		{name: "the key does not hold a bucket", used: 7, now: 999, answer: "no", becomes: repeatLater, owed: true},
		{name: "an error", used: 7, now: 999, answer: plenty, err: errBadReply, becomes: repeatLater, owed: true},
		{name: "at the last use", used: 7, now: 1000, all: true, becomes: repeatLater, owed: true},
		{name: "after it", used: 7, now: 5000, answer: plenty, becomes: repeatLater, owed: true},
		{name: "the token was used again", used: 8, now: 999, all: true, becomes: 8},
		{name: "and this is another bucket", used: 8, now: 999, answer: "1:0:0", becomes: 8},
		{name: "and the level holds none", used: 8, now: 999, answer: "0:0:0", becomes: 8},
		{name: "and this is an error", used: 8, now: 999, err: errBadReply, becomes: 8},
		{name: "its report is to be repeated", used: repeatLater, now: 999, all: true, becomes: repeatLater},
		{name: "and this is an error", used: repeatLater, now: 999, err: errBadReply, becomes: repeatLater},
		{name: "it is whole", now: 999, err: errBadReply},
	} {
		for _, byKey := range []bool{false, true} {
			cache := standingRules(headers)
			l, s := cache.limiter, cache.stands
			b := &batch{number: 7, cache: cache, limit: cache.limit, keys: []string{headers.Kind + "a"}, allGranted: row.all, answers: []string{row.answer}, err: row.err}
			b.ids = []string{"a"}
			if byKey {
				b.ids = nil
				b.reportKeys = b.keys
			}
			key := b.keys[0]
			lease := &Lease{limit: cache.limit}
			lease.RefuseUntil = 2000
			l.recent[key] = lease
			l.gateways.charged[key] = true
			if row.used != 0 {
				s.used[key] = row.used
			}
			applyReportsLocked(l, b, row.now)
			require.Equal(t, row.becomes, s.used[key], row.name)
			require.Equal(t, row.owed, len(s.owed) == 1, row.name)
			paid := row.used == 7 && row.becomes == 0
			require.Equal(t, !paid, l.gateways.charged[key], row.name)
			require.Equal(t, paid && row.answer == "1:0:0", lease.RefuseUntil == 0, row.name)
		}
	}
}

// A request passes by a standing token that is whole, in the time in which it may be used, and not above the number of tokens that a gateway
// remembers.
func TestStanding_uses(t *testing.T) {
	ways := map[string]KeyMaker{"by a header": headers, "by a key that is made": {MaxJoin: -1, Key: func(id string) string { return headers.Kind + id }, ManyToOne: true}}
	for way, keyMaker := range ways {
		for _, row := range []struct {
			name   string
			now    int64
			used   int64 // the number of the batch that reports the token
			others int   // tokens that are not whole
			open   bool  // a batch of reports is open
			uses   bool
		}{
			{name: "before", now: 99},
			{name: "from then on", now: 100, uses: true},
			{name: "before the last use", now: 999, uses: true},
			{name: "at the last use", now: 1000},
			{name: "before, and a batch is open", now: 99, open: true},
			{name: "a batch is open", now: 500, open: true, uses: true},
			{name: "at the last use, and a batch is open", now: 1000, open: true},
			{name: "it is used", now: 500, used: 7},
			{name: "it is used, and a batch is open", now: 500, used: 7, open: true},
			{name: "its report is to be repeated", now: 500, used: repeatLater},
			{name: "its report is to be repeated, and a batch is open", now: 500, used: repeatLater, open: true},
			{name: "nearly as many are used as it remembers", now: 500, others: maxUsed - 1, uses: true},
			{name: "as many are used", now: 500, others: maxUsed},
			{name: "and a batch is open", now: 500, others: maxUsed, open: true, uses: true},
		} {
			cache := standingRules(keyMaker)
			s, key := cache.stands, headers.Kind+"a"
			for i := 0; i < row.others; i++ {
				s.used[strconv.Itoa(i)] = repeatLater
			}
			if row.open {
				openReportsLocked(cache, row.now)
			}
			if row.used != 0 {
				s.used[key] = row.used
			}
			cache.lock.Lock()
			verdict := NewAllowID(cache)("a", row.now)
			require.Equal(t, row.uses, verdict > 0, "%s, %s", way, row.name)
			if row.uses {
				require.Equal(t, s.open.number, s.used[key], "%s, %s", way, row.name)
			} else {
				require.Equal(t, row.used, s.used[key], "%s, %s", way, row.name)
			}
		}
	}
}

// Reports that are owed are repeated while the tokens may be used, many together but not all at once.
func TestStanding_owedTogether(t *testing.T) {
	for _, row := range []struct {
		now         int64
		owed, stays int
	}{
		{99, 10, 10},
		{100, 10, 0},
		{999, maxOwed, 0},
		{999, maxOwed + 10, 10},
		{1000, 10, 10},
	} {
		cache := standingRules(headers)
		l, s := cache.limiter, cache.stands
		l.Unavailable.Store(false)
		for i := 0; i < row.owed; i++ {
			repeatReportLocked(s, strconv.Itoa(i))
		}
		repeatOwedLocked(l, row.now)
		require.Len(t, s.owed, row.stays)
		reported := 0
		for _, number := range s.used {
			if number != repeatLater {
				reported++
			}
		}
		require.Equal(t, row.owed-row.stays, reported)
	}
}
