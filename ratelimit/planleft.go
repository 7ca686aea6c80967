package ratelimit

// PlanLeft is what is left for a client under the tightest limit of its plan: the one with the fewest tokens, and of several such limits the
// one that takes longest for another token.
type PlanLeft struct {
	Name  string
	Limit *Limit
	Left  *Left // nil: it is not known
}

// note notes what is left under a limit.
func (p *PlanLeft) note(name string, limit *Limit, level int64) {
	left := &Left{}
	setLeft(left, limit, level)
	if p.Left == nil || isTighter(left, p.Left) {
		p.Name = name
		p.Limit = limit
		p.Left = left
	}
}

func isTighter(a, b *Left) bool {
	if a.Tokens != b.Tokens {
		return a.Tokens < b.Tokens
	}
	return a.Next > b.Next
}

// noteLease notes the tokens that this gateway holds of a bucket value. The value may hold more, but other gateways may have taken those.
func (p *PlanLeft) noteLease(lease *bucketLease) {
	tokens := lease.Tokens
	if tokens > MaxLeftOfGrant {
		tokens = MaxLeftOfGrant
	}
	for i, limit := range lease.levels.limits {
		p.note(lease.levels.names[i], limit, tokens*limit.period)
	}
}

// noteAnswer notes what Redis has reported of a bucket value, with what it has leased to this gateway, minus what this gateway owes. A nil
// answer is plenty.
func (p *PlanLeft) noteAnswer(d *askedDraw, a *drawAnswer) {
	lease := d.lease
	more := lease.repaid - lease.borrowed
	if d.leases && a != nil {
		more += lease.Tokens
	}
	for i, limit := range lease.levels.limits {
		level := limit.full / 8 * nearlyFull
		if a != nil {
			level = a.levels[i]
		}
		p.note(lease.levels.names[i], limit, level+more*limit.period)
	}
}

// noteBuckets notes what is in the buckets of this process.
func (p *PlanLeft) noteBuckets(lease *bucketLease, now int64) {
	for i, limit := range lease.levels.limits {
		level := lease.buckets[i].refilled(limit, now)
		if now < lease.ends {
			level = withLease(limit, level, lease.size, lease.Tokens)
		}
		p.note(lease.levels.names[i], limit, level)
	}
}

// LeftOfRefusal returns what is left for a request that may pass in retryAfter microseconds: nothing, under the limit that refused it. A
// refusal that is not by one of the plan's limits is shown as one by its first limit.
func LeftOfRefusal(plan *Plan, refusal Refusal, retryAfter int64) *PlanLeft {
	p := &PlanLeft{}
	if refusal.Draw >= len(plan.Draws) {
		return p
	}
	draw := &plan.Draws[refusal.Draw]
	level := 0
	for i, name := range draw.Levels.names {
		if name == refusal.Limit {
			level = i
		}
	}
	limit := draw.Levels.limits[level]
	p.Name = draw.Levels.names[level]
	p.Limit = limit
	p.Left = &Left{Known: true, Next: retryAfter, Full: retryAfter + (limit.full-draw.Cost*limit.period+limit.refill-1)/limit.refill}
	return p
}

// Each calls a function with each limit and its name, in the order of their names.
func (v *Levels) Each(visit func(name string, limit *Limit)) {
	for i, limit := range v.limits {
		visit(v.names[i], limit)
	}
}
