package ratelimit

import (
	"strconv"
	"strings"

	"github.com/resilient-gateway/resilience/internal/store"
)

// Requests under plans join the batches of one lane (queue.go), and go along with the trips of the other lanes. A batch of plans is one
// call of the script draw: it names each bucket value and each limit once.

var drawScript = store.NewScript(draw)

// planAsk is what one request of a batch asks for: the draws of its plan that no lease has paid for, or the renewal of a lease.
type planAsk struct {
	taking *taking        // nil: a renewal
	client *clientPenalty // nil: it has no penalty
	renew  *bucketLease   // nil: a request
	draws  []askedDraw
}

// askedDraw is a draw as it was sent.
type askedDraw struct {
	lease  *bucketLease
	index  int // of the draw in its plan
	cost   int64
	owed   int64 // of which the call pays this much
	upTo   int64 // what repaid becomes when Redis has answered
	leases bool  // it asks for the next lease
}

// joinPlanLocked adds a request to the open batch of plans, and opens one if there is none.
func joinPlanLocked(cache *Cache, t *taking, now int64) (*batch, error) {
	ask := &planAsk{taking: t, client: t.client}
	for i, lease := range t.leases {
		if t.numbers[i] == notPaid {
			ask.draws = append(ask.draws, askedDraw{lease: lease, index: i, cost: t.plan.Draws[i].Cost})
		}
	}
	b := joinAskLocked(cache, ask, now)
	if b == nil {
		return nil, store.ErrUnavailable
	}
	return b, nil
}

// joinAskLocked adds a request or a renewal to the open batch, and returns the batch; nil: Redis is unavailable.
func joinAskLocked(cache *Cache, ask *planAsk, now int64) *batch {
	b := cache.lane.open
	if b == nil {
		b = cache.openBatch
		if cannotJoinLocked(cache, now) {
			return nil
		}
	}
	b.asks = append(b.asks, ask)
	if len(b.asks) > b.lastPlace {
		sealLocked(b)
	}
	if now >= b.sendAt {
		sendIfOverdueLocked(b, now)
	}
	return b
}

// renewDueLocked renews the leases of a request that are due, in the background. Meanwhile requests spend what is left of them.
func renewDueLocked(cache *Cache, t *taking, now int64) {
	for _, lease := range t.leases {
		if now < lease.Until || lease.renewing || lease.asking != 0 || cache.limiter.Unavailable.Load() {
			continue
		}
		lease.renewing = true
		lease.Until = lease.ends
		joinAskLocked(cache, &planAsk{renew: lease, client: t.client, draws: []askedDraw{{lease: lease}}}, now)
	}
}

// planCall is a call of the script draw in the making.
type planCall struct {
	keys, limits map[string]int // the index of each, from 1
	words        []string       // keys
	limitWords   []string
	asks, plain  []string // what each request asks for; and without what must not count twice
	once         bool
	standing     bool // a limit has standing leases
}

// planCallLocked makes the call of a batch of plans. It closes the batch to further requests.
func planCallLocked(l *Limiter, b *batch, now int64) *store.Call {
	sealLocked(b)
	b.sentAt = now
	b.replySeq = l.replySeq
	c := &planCall{keys: map[string]int{}, limits: map[string]int{}}
	for _, ask := range b.asks {
		want := "1"
		if ask.taking == nil {
			want = "0"
		} else if own := ask.taking.plan.Own; own != nil {
			limitIndex(c, limitWord(OwnLimit, own))
			c.standing = c.standing || own.standing > 0
		}
		if ask.client != nil {
			want += "p" + strconv.Itoa(keyIndex(l, c, ask.client.key))
		}
		words, plain := want, want
		for i := range ask.draws {
			word, again := askDrawLocked(l, c, b, &ask.draws[i], now)
			words += " " + word
			plain += " " + again
		}
		c.asks = append(c.asks, store.Word(words))
		c.plain = append(c.plain, store.Word(plain))
	}
	if c.standing {
		c.words = append(c.words, l.gateways.countsWire)
	}
	words := append(c.words, leaseWire, limitsWord(c.limitWords))
	words = append(words, c.asks...)
	b.call = &store.Call{Script: drawScript, Number: len(c.words), Words: words}
	if c.once {
		repeatPlain(b.call, c.plain)
	}
	return b.call
}

// repeatPlain makes a call safe to repeat: the repeated call returns no lease and refunds nothing. It pays the debt again, because Redis may
// not have made the first call.
func repeatPlain(call *store.Call, plain []string) {
	call.Once = true
	call.Again = func(again *store.Call) { copy(again.Words[again.Number+2:], plain) }
}

// limitIndex returns the index of a limit in the call.
func limitIndex(c *planCall, word string) int {
	if c.limits[word] == 0 {
		c.limitWords = append(c.limitWords, word)
		c.limits[word] = len(c.limitWords)
	}
	return c.limits[word]
}

// keyIndex returns the index of a key in the call.
func keyIndex(l *Limiter, c *planCall, key string) int {
	if c.keys[key] == 0 {
		c.words = append(c.words, store.Word(l.PlanPrefix+key))
		c.keys[key] = len(c.words)
	}
	return c.keys[key]
}

// askDrawLocked encodes a draw: once with the refund and the exchange of the lease, and once without.
func askDrawLocked(l *Limiter, c *planCall, b *batch, d *askedDraw, now int64) (word, plain string) {
	lease := d.lease
	indexes := []string{}
	for _, limit := range lease.levels.words {
		indexes = append(indexes, strconv.Itoa(limitIndex(c, limit)))
	}
	c.standing = c.standing || lease.levels.standing
	ask := &drawAsk{key: keyIndex(l, c, lease.key), limits: strings.Join(indexes, "+"), cost: d.cost}
	if lease.borrowed > lease.repaid {
		ask.owed = owedByLeaseLocked(lease, now)
		d.owed = ask.owed
		d.upTo = lease.borrowed
	}
	plain = drawWord(ask)
	ask.refund = lease.refund
	lease.refund = 0
	lease.requests += d.cost
	if lease.asking == 0 {
		exchangeLocked(b, d, ask, now)
	}
	c.once = c.once || ask.refund > 0 || ask.lease != 0
	return drawWord(ask), plain
}

// exchangeLocked asks for the next lease in exchange for the present one. Only one batch at a time asks for a lease on a bucket.
func exchangeLocked(b *batch, d *askedDraw, ask *drawAsk, now int64) {
	lease := d.lease
	if lease.number == 0 && lease.shortUse == 0 && lease.requests <= 1 && now-lease.prefetchedAt > lease.levels.terms.coldAfter {
		lease.prefetchedAt = now
		return // seldom seen, like a new client
	}
	ask.short, ask.long = planLeaseSizeLocked(lease, now)
	if isDelayedLocked(b.cache.limiter, lease.key) {
		ask.short = 0
		ask.long = 0
	}
	if lease.number != 0 && now < lease.ends {
		ask.lease = lease.number
		ask.unused = lease.Tokens
	}
	if ask.lease == 0 && ask.short == 0 && ask.long == 0 {
		return
	}
	d.leases = true
	capLevelsLocked(lease, now)
	lease.asking = b.number
	lease.number = 0
	lease.cappedFor = 0
	lease.size = 0
	lease.Tokens = 0
	lease.renewing = false
}

// planLeaseSizeLocked is prefetchSizeLocked for the lease of a draw.
func planLeaseSizeLocked(lease *bucketLease, now int64) (short, long int64) {
	as := &Lease{limit: lease.levels.terms, size: lease.size, usage: lease.usage}
	as.Tokens = lease.Tokens
	words := strings.Split(prefetchSizeLocked(as, now), " ")
	lease.usage = as.usage
	lease.requests = 0
	short, _ = strconv.ParseInt(words[0], 10, 64)
	long, _ = strconv.ParseInt(words[1], 10, 64)
	return short, long
}
