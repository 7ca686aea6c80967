package standingmodel

// random is a stream of numbers that one number decides. A step is such a number, so that a run without some of its steps takes the others as
// before.
type random uint64

// Intn returns a number from 0 to n-1.
func (r *random) Intn(n int) int {
	*r += 0x9e3779b97f4a7c15
	x := uint64(*r)
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return int((x ^ x>>31) >> 33 % uint64(n))
}

// Result is what a run has come to.
type Result struct {
	Excess     int    // tokens of the worst window above what its limit allows; 0: none
	Which      string // the limit of that window
	Admissions int    // requests that passed
	Windows    int    // that were checked
	Standing   int    // requests that passed by standing tokens
	Trace      []string
}

// Run lets the adversary take some steps in the world of a seed. With trace, the result says what happened.
func Run(seed uint64, steps []uint64, omit Omit, trace bool) Result {
	w := newWorld(random(seed), omit)
	w.noted = trace
	w.describe()
	if w.random.Intn(2) == 0 {
		w.settleDown()
	}
	for _, step := range steps {
		w.random = random(step)
		w.act()
	}
	if end := w.untilNextEnd(); end > 0 && w.random.Intn(2) == 0 {
		w.now += end
	}
	for bucket := range w.redis.values {
		w.burst(w.gateways[0], bucket)
	}
	return w.judge()
}

// Steps returns the steps of a run that the search takes for a seed.
func Steps(seed uint64) []uint64 {
	r := random(^seed)
	steps := make([]uint64, 40+r.Intn(160))
	for i := range steps {
		r.Intn(1)
		steps[i] = uint64(r) ^ seed<<32
	}
	return steps
}

// Search takes runs from a seed on, until one has a window above its limit. It returns that seed, or -1.
func Search(from uint64, runs int, omit Omit) (found int64, sum Result) {
	for seed := from; seed < from+uint64(runs); seed++ {
		r := Run(seed, Steps(seed), omit, false)
		sum.Admissions += r.Admissions
		sum.Windows += r.Windows
		sum.Standing += r.Standing
		if r.Excess > 0 {
			return int64(seed), sum
		}
	}
	return -1, sum
}

// Shorten removes steps of a run that has a window above its limit, while it still has one.
func Shorten(seed uint64, steps []uint64, omit Omit) []uint64 {
	for size := len(steps) / 2; size > 0; {
		shorter := false
		for i := 0; i+size <= len(steps); {
			fewer := append(append([]uint64{}, steps[:i]...), steps[i+size:]...)
			if Run(seed, fewer, omit, false).Excess > 0 {
				steps = fewer
				shorter = true
			} else {
				i += size
			}
		}
		if !shorter {
			size /= 2
		}
	}
	return steps
}

func newWorld(r random, omit Omit) *world {
	w := &world{omit: omit, random: r, routes: 1}
	if omit.OneTable {
		w.routes = 2
	}
	w.limits[0] = w.anyLimit()
	w.limits[1] = w.limits[0]
	if w.random.Intn(5) == 0 {
		w.limits[1] = w.anyLimit()
	}
	w.other = limit{capacity: 1 + w.random.Intn(8), token: 4 << w.random.Intn(5)}
	w.longest = larger(w.limits[0].lasts, w.limits[1].lasts)
	w.leaseTime = 5 + w.random.Intn([]int{4, 4, 40}[w.random.Intn(3)]*w.limits[0].token)
	w.delayed = []int{1, 2, 3, 6}[w.random.Intn(4)]
	w.now = 1 + w.random.Intn(1000)
	w.step = 100000
	w.reloads = span{-1, -1}
	w.chooseWeights()
	w.populate(1+w.random.Intn(w.limits[0].most+3), 1+w.random.Intn(5)/4)
	return w
}

// populate makes the gateways and the buckets of a new world.
func (w *world) populate(gateways, buckets int) {
	w.redis.values = make([]*value, buckets)
	w.admitted, w.others = make([][]admission, buckets), make([][]admission, buckets)
	w.replica = copyDatabase(&w.redis)
	w.gateways = nil
	for ; gateways > 0; gateways-- {
		w.gateways = append(w.gateways, w.newGateway(w.limits[0]))
	}
}

// anyLimit returns a limit that few requests exhaust. M may be anything below the capacity: the rules do not depend on the hundredth.
func (w *world) anyLimit() limit {
	l := limit{most: []int{1, 1, 2, 2, 3, 4}[w.random.Intn(6)], token: 4 * []int{1, 4, 10, 20}[w.random.Intn(4)]}
	if w.random.Intn(16) == 0 {
		l.most = 5 + w.random.Intn(12)
	}
	l.capacity = l.most + 1 + w.random.Intn(6)
	times := 2
	if w.omit.DoubleTime {
		times = 1
	}
	l.lasts = times*(l.pay()+1) + l.pay()/10 + 20 + w.random.Intn([]int{1, 6 * l.token}[w.random.Intn(2)])
	return l
}

// describe begins the trace.
func (w *world) describe() {
	for _, l := range w.limits {
		w.note("capacity %d, a token every %d ticks, M %d, a registration lasts %d, a lease %d", l.capacity, l.token, l.most, l.lasts, w.leaseTime)
	}
	w.note("the other limit: capacity %d, a token every %d ticks", w.other.capacity, w.other.token)
}

// act takes a step.
func (w *world) act() {
	g := w.gateways[w.random.Intn(len(w.gateways))]
	bucket := w.random.Intn(len(w.redis.values))
	route := w.random.Intn(w.routes)
	action, x := 0, w.random.Intn(w.total)
	for x >= w.weights[action] {
		x -= w.weights[action]
		action++
	}
	switch action {
	case 0:
		w.pass(g)
	case 1:
		w.send(w.registration(g))
	case 2:
		w.use(g, bucket, route, w.clockOf(g), w.now)
	case 3:
		w.useAll(bucket)
	case 4:
		w.request(g, bucket, route)
	case 5:
		w.report(g, bucket, route)
	case 6:
		w.forget(g, bucket, route)
	case 7:
		if len(w.queue) > 0 {
			w.deliver(w.random.Intn(len(w.queue)), w.random.Intn(6) == 0)
		}
	case 8:
		w.replace(g)
	case 9:
		w.burst(g, bucket)
	case 10:
		w.pause(g, bucket, route)
	case 11:
		w.reload(g)
	case 12:
		w.replica = copyDatabase(&w.redis)
	case 13:
		w.breakSomething(g, bucket)
	case 14:
		w.renewAll()
	case 15:
		w.generations(g, bucket)
	case 16:
		w.applyLate(g)
	case 17:
		w.process(w.registration(g)) // and the answer is lost
	case 18:
		w.liveOn()
	case 19:
		w.standStill(g, bucket, route)
	case 20:
		w.expire(g, bucket)
	}
}

// actions is how many kinds of steps there are, and usual how often each is taken.
const actions = 21

var usual = [actions]int{10, 10, 10, 3, 10, 5, 2, 5, 2, 2, 1, 1, 1, 2, 3, 1, 1, 1, 1, 1, 1}

// chooseWeights lets a run take some kinds of steps more often than usual, and others never: what needs several steps of one kind is found
// sooner.
func (w *world) chooseWeights() {
	for i := range w.weights {
		w.weights[i] = usual[i] * []int{0, 1, 1, 4}[w.random.Intn(4)]
	}
	w.weights[0] = larger(w.weights[0], usual[0])
	w.weights[1] = larger(w.weights[1], usual[1])
	for _, weight := range w.weights {
		w.total += weight
	}
}

// settleDown lets all gateways of a new world join and wait, so that each may use standing tokens.
func (w *world) settleDown() {
	for round := 0; round < 2; round++ {
		w.renewAll()
		w.now += w.limits[0].pay() + w.limits[0].pay()/8 + 2
	}
}

// renewAll renews the registrations of all gateways, and lets those without permission join.
func (w *world) renewAll() { w.renewOthers(nil) }

// renewOthers is renewAll without one gateway.
func (w *world) renewOthers(but *gateway) {
	for _, g := range w.gateways {
		if g == but {
			continue
		}
		m := w.registration(g)
		w.process(m)
		w.apply(m)
	}
}

// generations lets one gateway after the other use its standing tokens and die, often from the time at which a bucket is empty until its key
// ends.
func (w *world) generations(g *gateway, bucket int) {
	fromEmpty := w.random.Intn(2) == 0
	if fromEmpty {
		w.burst(g, bucket)
	}
	for more := w.random.Intn(5); more >= 0; more-- {
		g = w.succeed(g)
	}
	if v := w.redis.values[bucket]; fromEmpty && v != nil && v.ends > w.clock() {
		w.now = v.ends - w.step
		w.burst(g, bucket)
	}
}

// succeed lets a gateway use its standing tokens and die, and another one take its place as soon as the registration has ended. It
// returns that one.
func (w *world) succeed(g *gateway) *gateway {
	for bucket := range w.redis.values {
		w.use(g, bucket, 0, w.clockOf(g), w.now)
	}
	w.replace(g)
	successor := w.gateways[0]
	for _, h := range w.gateways {
		if h.number > successor.number {
			successor = h
		}
	}
	if w.random.Intn(2) == 0 {
		successor = w.gateways[w.random.Intn(len(w.gateways))]
	}
	drains := w.random.Intn(2) == 0
	for _, m := range w.redis.members {
		if m.name == g.name && m.ends > w.clock() {
			w.now = m.ends - w.step
		}
	}
	for round := 0; round < 2; round++ {
		m := w.registration(successor)
		w.process(m)
		w.apply(m)
		w.now += larger(0, successor.begins-w.clockOf(successor)) * 1000 / (1000 + successor.drift)
		w.now++
		if bucket := w.random.Intn(len(w.redis.values)); drains {
			w.process(&message{gateway: successor, bucket: bucket, limit: successor.limit, ask: ask{tokens: successor.limit.capacity}})
		}
	}
	for bucket := range w.redis.values {
		w.use(successor, bucket, 0, w.clockOf(successor), w.now)
	}
	return successor
}

// applyLate renews a gateway's registration, and lets the answer arrive at a time until which the gateway accepts it. Then the gateway uses its
// standing tokens as late as it may.
func (w *world) applyLate(g *gateway) {
	m := w.registration(g)
	w.process(m)
	if left := w.lastUse(g) - w.clockOf(g); left > 0 {
		w.now += w.random.Intn(left)
	}
	w.apply(m)
	if left := w.lastUse(g) - w.clockOf(g); left > 1 && w.random.Intn(2) == 0 {
		w.now += left / 2
		w.renewOthers(g)
		w.now += (w.lastUse(g) - w.clockOf(g) - 1) * 1000 / (1000 + g.drift)
		for bucket := range w.redis.values {
			w.use(g, bucket, 0, w.clockOf(g), w.now)
		}
		w.now += w.random.Intn(4)
		w.renewOthers(g)
		w.burst(g, w.random.Intn(len(w.redis.values)))
	}
}

// standStill stops a request that has read the clock, until the answer to a report has arrived.
func (w *world) standStill(g *gateway, bucket, route int) {
	clock, at := w.clockOf(g), w.now
	w.use(g, bucket, route, clock, at)
	e := g.entries[bucket][route]
	m := &message{gateway: g, bucket: bucket, route: route, generation: e.generation, limit: g.limit, ask: ask{report: true}}
	w.process(m)
	w.now += w.random.Intn(2 * g.limit.lasts)
	w.apply(m)
	w.use(g, bucket, route, clock, at)
}

// expire lets a gateway lease all that there is, use all that it has as late as it may, and no longer renew its registration.
func (w *world) expire(g *gateway, bucket int) {
	m := &message{gateway: g, bucket: bucket, limit: g.limit, ask: ask{lease: g.limit.capacity}, sentAt: w.clockOf(g)}
	w.process(m)
	w.apply(m)
	last := w.lastUse(g)
	if h := g.leases[bucket]; h.tokens > 0 && w.random.Intn(2) == 0 {
		last = smaller(last, h.until)
	}
	if left := last - w.clockOf(g); left > 1 {
		w.now += (left - 1) * 1000 / (1000 + g.drift)
	}
	w.use(g, bucket, 0, w.clockOf(g), w.now)
	w.spend(g, bucket, g.leases[bucket].tokens)
	for _, one := range w.redis.members {
		if one.name == g.name && one.ends > w.clock() {
			w.now = one.ends - w.step
		}
	}
	w.process(w.registration(g))
	w.process(&message{gateway: g, bucket: bucket, limit: g.limit, ask: ask{tokens: g.limit.capacity}})
}

// liveOn lets time pass until nothing from before counts, while all gateways renew their registrations.
func (w *world) liveOn() {
	for until := w.now + larger(w.longest, w.leaseTime); w.now <= until; {
		w.now += 1 + w.limits[0].lasts/6
		w.renewAll()
	}
}

// pass lets time pass: a tick, about a token, until something ends, or for long.
func (w *world) pass(g *gateway) {
	passes := 0
	l := g.limit
	switch w.random.Intn(6) {
	case 0:
		passes = 1
	case 1:
		passes = w.random.Intn(l.token + 1)
	case 2:
		passes = l.token * (1 + w.random.Intn(l.most+1))
	case 3:
		passes = w.random.Intn(l.lasts + 1)
	case 4:
		passes = w.untilNextEnd() - w.random.Intn(2)*w.random.Intn(3)
	case 5:
		clock := w.clockOf(g)
		if g.begins > clock && w.random.Intn(2) == 0 {
			passes = (g.begins - clock) * 1000 / (1000 + g.drift)
		} else if last := w.lastUse(g); last > clock {
			passes = (last-clock)*1000/(1000+g.drift) - 1
		}
	}
	if passes > 0 {
		w.now += passes
	}
}

// untilNextEnd returns the time until the next registration or key ends in Redis.
func (w *world) untilNextEnd() int {
	clock, next := w.clock(), 0
	for _, m := range w.redis.members {
		if m.ends > clock && (next == 0 || m.ends < next) {
			next = m.ends
		}
	}
	for _, v := range w.redis.values {
		if v != nil && v.ends > clock && (next == 0 || w.random.Intn(2) == 0) {
			next = v.ends
		}
	}
	return next - clock
}

// useAll lets all gateways use their standing tokens.
func (w *world) useAll(bucket int) {
	for _, g := range w.gateways {
		for route := 0; route < w.routes; route++ {
			w.use(g, bucket, route, w.clockOf(g), w.now)
		}
	}
}

// spend spends what a gateway has leased of a bucket.
func (w *world) spend(g *gateway, bucket, tokens int) {
	h := &g.leases[bucket]
	if h.tokens == 0 || w.clockOf(g) >= h.until {
		return
	}
	tokens = smaller(tokens, h.tokens)
	h.tokens -= tokens
	w.admit(bucket, tokens, h.both, w.now)
	w.note("gateway %d spends %d leased tokens of bucket %d", g.number, tokens, bucket)
}

// request is requests that ask Redis, or spend a lease.
func (w *world) request(g *gateway, bucket, route int) {
	h := &g.leases[bucket]
	if h.tokens > 0 && w.random.Intn(2) == 0 {
		w.spend(g, bucket, 1+w.random.Intn(h.tokens))
		return
	}
	a := ask{tokens: 1, both: w.random.Intn(8) == 0 && !w.single}
	if w.random.Intn(3) > 0 {
		a.tokens = g.limit.capacity
	}
	if w.random.Intn(3) == 0 {
		a.lease = 1 + w.random.Intn(g.limit.capacity)
		if h.deadline != 0 && w.clockOf(g) < h.until {
			a.ended, a.unused = h.deadline, h.tokens
		}
		*h = held{}
	}
	if a.lease > 0 && w.random.Intn(2) == 0 {
		a.tokens, a.lease = 0, g.limit.capacity // a lease is renewed
	}
	e := g.entries[bucket][route]
	a.report = e.used && w.random.Intn(2) == 0
	w.send(&message{gateway: g, bucket: bucket, route: route, generation: e.generation, limit: g.limit, ask: a})
}

// report reports the use of a standing token.
func (w *world) report(g *gateway, bucket, route int) {
	if e := g.entries[bucket][route]; e.used {
		w.send(&message{gateway: g, bucket: bucket, route: route, generation: e.generation, limit: g.limit, ask: ask{report: true}})
	}
}

// forget lets a gateway make room for other keys. It forgets only entries that are whole.
func (w *world) forget(g *gateway, bucket, route int) {
	e := &g.entries[bucket][route]
	if !e.used || w.omit.RememberNotPaid {
		e.used = false
		e.generation++
	}
}

// replace ends a process without a word, and starts another.
func (w *world) replace(g *gateway) {
	g.dead = true
	w.note("gateway %d dies", g.number)
	for i := range w.gateways {
		if w.gateways[i] == g {
			w.gateways[i] = w.newGateway(g.limit)
		}
	}
}

// burst spends everything that gateways have of a bucket, at once.
func (w *world) burst(g *gateway, bucket int) {
	w.useAll(bucket)
	for _, h := range w.gateways {
		w.spend(h, bucket, h.leases[bucket].tokens)
	}
	w.process(&message{gateway: g, bucket: bucket, limit: g.limit, ask: ask{tokens: g.limit.capacity}})
}

// pause stops a process after a request has read the clock, or lets the request continue: the request counts from when it read the clock.
func (w *world) pause(g *gateway, bucket, route int) {
	if g.paused == nil {
		g.paused = &pause{clock: w.clockOf(g), at: w.now}
		return
	}
	w.use(g, bucket, route, g.paused.clock, g.paused.at)
	g.paused = nil
}

// reload lets a gateway load the new limit, and never the old one again.
func (w *world) reload(g *gateway) {
	if w.limits[0] == w.limits[1] || g.limit == w.limits[1] {
		return
	}
	if w.reloads.from < 0 {
		w.reloads.from = w.now
	}
	w.load(g, w.limits[1])
	if w.random.Intn(2) == 0 {
		for _, g := range w.gateways {
			w.load(g, w.limits[1])
		}
	}
	w.reloads.until = w.now
}

// breakSomething lets Redis fail, or suspends a machine, at most twice in a run.
func (w *world) breakSomething(g *gateway, bucket int) {
	if len(w.failures) == 2 || w.random.Intn(2) > 0 {
		return
	}
	const fresh = 0
	standing := larger(w.limits[0].most, w.limits[1].most)
	switch w.random.Intn(8) {
	case 0:
		w.redis = database{values: make([]*value, len(w.redis.values))}
		w.fail("redis is flushed", fresh)
	case 1:
		w.redis.values[bucket] = nil
		w.fail("redis evicts a bucket", fresh)
	case 2:
		w.redis.members = nil
		w.fail("redis evicts the registry", standing)
	case 3:
		w.redis.counted = false
		w.fail("redis evicts the counts", fresh)
	case 4:
		w.redis = copyDatabase(&w.replica)
		w.fail("redis fails over to a replica that lags behind", fresh)
	case 5:
		w.step += w.random.Intn(2 * w.longest)
		w.fail("redis's clock jumps forward", fresh)
	case 6:
		w.step -= w.random.Intn(2 * w.longest)
		w.note("redis's clock is set back")
	case 7:
		w.suspend(g)
	}
}

// suspend stops a gateway's machine and its clock. Afterwards the gateway may use what it has, though Redis has long counted it as ended.
func (w *world) suspend(g *gateway) {
	lost := w.random.Intn(2 * w.longest)
	g.behind += lost * (1000 + g.drift) / 1000
	w.now += lost
	w.fail("a gateway's machine was suspended", 0)
}
