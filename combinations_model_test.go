//go:build !yaegi

package resilience

import (
	"net/http"
	"sort"
	"strconv"
	"strings"
	"time"
)

// A second rate limiter, written from docs/configuration.md and not from the code: slow, simple, and for one gateway. It says what the
// middleware must answer (combinations_test.go).

// modelLimit is a limit or a tier.
type modelLimit struct {
	name                   string
	capacity, rate, period int64 // period in microseconds
	source                 *SourceCriterionConfig
	match                  *MatchConfig
	charge                 string
	unlimited, deny        bool
	priority               int64
}

// modelBucket counts in parts of a token: period parts are one.
type modelBucket struct{ level, at int64 }

type modelPenalty struct{ ends, length, count, begun int64 }

type model struct {
	c       *RateLimitConfig
	own     *modelLimit // nil: the block has none
	limits  []*modelLimit
	tiers   []*modelLimit // in the order in which they are tried
	buckets map[string]*modelBucket
	clients map[string]*modelPenalty
	slack   int64 // microseconds by which the clock may differ
}

// ruling is what a request gets.
type ruling struct {
	status  int             // 0: that of the service; 429 and 403 are refusals, also in a dry run
	names   map[string]bool // of the limits, any of which may be named
	wait    int64           // microseconds
	counted bool            // a limit was asked
	policy  []string        // the limits that apply, as in RateLimit-Policy
	left    int64           // tokens under the tightest limit
	next    int64           // microseconds to another token of it
	full    map[string]int64
	quota   map[string]int64
	taken   map[*modelBucket]int64
}

func numberOf(text string, byDefault int64) int64 {
	if strings.TrimSpace(text) == "" {
		return byDefault
	}
	n, _ := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	return n
}

func periodOf(text string, byDefault int64) int64 {
	if text == "" {
		return byDefault
	}
	d, _ := time.ParseDuration(text)
	return d.Microseconds()
}

func newModel(c *RateLimitConfig) *model {
	m := &model{c: c, buckets: map[string]*modelBucket{}, clients: map[string]*modelPenalty{}}
	block := &modelLimit{
		name: "default", capacity: numberOf(c.Capacity, 100), rate: numberOf(c.RefillRate, 10), period: periodOf(c.RefillPeriod, 1000000),
		source: c.SourceCriterion,
	}
	if len(c.Limits) == 0 || c.Capacity != "" || c.RefillRate != "" {
		m.own = block
	}
	for name, one := range c.Limits {
		limit := &modelLimit{
			name: name, capacity: numberOf(one.Capacity, block.capacity), rate: numberOf(one.RefillRate, block.rate),
			period: periodOf(one.RefillPeriod, block.period), source: one.SourceCriterion, match: one.Match, charge: one.ChargeStatus,
		}
		if limit.source == nil {
			limit.source = c.SourceCriterion
		}
		m.limits = append(m.limits, limit)
	}
	for name, one := range c.Tiers {
		m.tiers = append(m.tiers, &modelLimit{
			name: name, capacity: numberOf(one.Capacity, block.capacity), rate: numberOf(one.RefillRate, block.rate),
			period: periodOf(one.RefillPeriod, block.period), source: c.SourceCriterion, match: one.Match,
			unlimited: one.Unlimited == "true", deny: one.Deny == "true", priority: numberOf(one.Priority, 0),
		})
	}
	sort.Slice(m.tiers, func(i, j int) bool {
		if m.tiers[i].priority != m.tiers[j].priority {
			return m.tiers[i].priority > m.tiers[j].priority
		}
		return m.tiers[i].name < m.tiers[j].name
	})
	return m
}

// draw is a limit that applies to a request, and the client's bucket.
type modelDraw struct {
	limit  *modelLimit
	bucket *modelBucket
}

// decide rules on a request that the service answers with a status.
func (m *model) decide(r *http.Request, service int, now int64) *ruling {
	verdict := &ruling{names: map[string]bool{}, full: map[string]int64{}, quota: map[string]int64{}, taken: map[*modelBucket]int64{}}
	block := m.own
	for _, tier := range m.tiers {
		if m.matches(tier.match, r) {
			block = tier
			break
		}
	}
	if block != nil && block.deny {
		verdict.status = 403
		return verdict
	}
	if block != nil && block.unlimited {
		return verdict
	}
	draws := []modelDraw{}
	limits := m.limits
	if block != nil {
		limits = append([]*modelLimit{block}, limits...)
	}
	denied := false
	for _, limit := range limits {
		if limit != block && !m.matches(limit.match, r) {
			continue
		}
		key, kind := clientOf(limit.source, r)
		if kind == "deny" {
			denied = true
		}
		if kind != "" {
			continue
		}
		if m.buckets[limit.name+"|"+key] == nil {
			m.buckets[limit.name+"|"+key] = &modelBucket{level: limit.capacity * limit.period, at: now}
		}
		draws = append(draws, modelDraw{limit, m.buckets[limit.name+"|"+key]})
	}
	if denied {
		verdict.status = 403
		return verdict
	}
	if len(draws) == 0 {
		return verdict
	}
	verdict.counted = true
	cost := m.costOf(r)
	for _, d := range draws {
		d.refill(now)
		fill := (d.limit.capacity*d.limit.period + d.limit.rate - 1) / d.limit.rate
		verdict.policy = append(verdict.policy, `"`+d.limit.name+`";q=`+strconv.FormatInt(d.limit.capacity, 10)+";w="+wholeSeconds(fill))
		verdict.quota[d.limit.name] = d.limit.capacity
	}
	client := m.clientPenalty(r)
	if client != nil && now < client.ends {
		verdict.status = 429
		verdict.names["penalty"] = true
		verdict.wait = client.ends - now
		return verdict
	}
	for _, d := range draws {
		if wait := d.until(cost); wait > verdict.wait {
			verdict.wait = wait
		}
	}
	everybody := map[string]bool{}
	for _, d := range draws {
		wait := d.until(cost)
		if wait == 0 || wait < verdict.wait-m.slack {
			continue
		}
		verdict.names[d.limit.name] = true
		everybody[d.limit.name] = d.limit.source != nil && d.limit.source.All == "true"
		verdict.full[d.limit.name] = wait + (d.limit.capacity*d.limit.period-cost*d.limit.period+d.limit.rate-1)/d.limit.rate
	}
	if verdict.wait > 0 {
		verdict.status = 429
		for name := range verdict.names {
			if !everybody[name] && client != nil {
				m.countRefusal(client, now)
				break
			}
		}
		return verdict
	}
	verdict.left = 1 << 60
	for _, d := range draws {
		d.bucket.level -= cost * d.limit.period
		tokens, next := d.bucket.level/d.limit.period, d.until(d.bucket.level/d.limit.period+1)
		if tokens < verdict.left || tokens == verdict.left && next > verdict.next {
			verdict.left, verdict.next = tokens, next
		}
	}
	for _, d := range draws {
		tokens, next := d.bucket.level/d.limit.period, d.until(d.bucket.level/d.limit.period+1)
		if tokens == verdict.left && next >= verdict.next-m.slack {
			verdict.names[d.limit.name] = true
			verdict.full[d.limit.name] = d.until(d.limit.capacity)
		}
		verdict.taken[d.bucket] = cost * d.limit.period
		if !isCharged(d.limit.charge, service) {
			d.bucket.level += cost * d.limit.period
			verdict.taken[d.bucket] = 0
		}
	}
	return verdict
}

// giveBack takes a ruling back that admitted a request.
func (m *model) giveBack(v *ruling) {
	for bucket, level := range v.taken {
		bucket.level += level
	}
}

func (d modelDraw) refill(now int64) {
	full := d.limit.capacity * d.limit.period
	d.bucket.level += (now - d.bucket.at) * d.limit.rate
	d.bucket.at = now
	if d.bucket.level > full {
		d.bucket.level = full
	}
}

// until returns the microseconds until the bucket has that many tokens.
func (d modelDraw) until(tokens int64) int64 {
	missing := tokens*d.limit.period - d.bucket.level
	if missing <= 0 {
		return 0
	}
	return (missing + d.limit.rate - 1) / d.limit.rate
}

func isCharged(list string, status int) bool {
	if list == "" {
		return true
	}
	for _, part := range strings.Split(list, ",") {
		first, last, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			last = first
		}
		if int64(status) >= numberOf(first, 0) && int64(status) <= numberOf(last, 0) {
			return true
		}
	}
	return false
}

// clientPenalty returns the client that the penalty is for; nil: none.
func (m *model) clientPenalty(r *http.Request) *modelPenalty {
	if m.c.Penalty == nil {
		return nil
	}
	key, kind := clientOf(m.c.SourceCriterion, r)
	if kind != "" {
		return nil
	}
	if m.clients[key] == nil {
		m.clients[key] = &modelPenalty{}
	}
	return m.clients[key]
}

func (m *model) countRefusal(p *modelPenalty, now int64) {
	first, threshold := periodOf(m.c.Penalty.Time, 60000000), numberOf(m.c.Penalty.Refusals, 20)
	most := periodOf(m.c.Penalty.MaxTime, 3600000000)
	if p.count == 0 || now-p.begun >= first {
		p.count, p.begun = 0, now
	}
	if now >= p.ends+2*p.length {
		p.length = 0
	}
	p.count++
	if p.count < threshold {
		return
	}
	p.count = 0
	if p.length == 0 {
		p.length = first
	} else {
		p.length *= 2
	}
	if p.length > most {
		p.length = most
	}
	p.ends = now + p.length
}

func (m *model) costOf(r *http.Request) int64 {
	c := m.c.Cost
	if c == nil {
		return 1
	}
	if lines := r.Header.Values(c.Header); c.Header != "" && len(lines) > 0 {
		n, err := strconv.ParseInt(strings.TrimSpace(lines[len(lines)-1]), 10, 64)
		if err != nil || n < 1 || n > numberOf(c.Max, 100) {
			return 1
		}
		return n
	}
	longest, cost := "", int64(0)
	for pattern, text := range c.Paths {
		if len(pattern) > len(longest) && glob(pattern, r.URL.Path) {
			longest, cost = pattern, numberOf(text, 1)
		}
	}
	if cost > 0 {
		return cost
	}
	return numberOf(c.Methods[r.Method], 1)
}

func wholeSeconds(micros int64) string {
	if micros < 1000000 {
		return "1"
	}
	return strconv.FormatInt((micros+999999)/1000000, 10)
}
