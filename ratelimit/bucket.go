package ratelimit

// bucket is a token bucket in this process: what the script keeps in Redis, with the same arithmetic, on this process's
// clock. The zero value is not a bucket (assumeFull). The limiter's Mu guards it.
type bucket struct {
	level  int64 // in units of a token / period
	at     int64 // the time of that level, microseconds
	period int64 // that the level counts in, microseconds
}

// refilled returns the level at the time now, in the units of the given limit.
func (b *bucket) refilled(limit *Limit, now int64) int64 {
	level := b.level
	if b.period != limit.period {
		tokens := level / b.period
		if tokens >= limit.full/limit.period {
			return limit.full // an int64 may not hold so many units
		}
		rest := float64(level-tokens*b.period) / float64(b.period) * float64(limit.period)
		level = tokens*limit.period + int64(rest)
	}
	if level >= limit.full {
		return limit.full
	}
	elapsed := now - b.at
	if elapsed <= 0 {
		return level
	}
	// Bounded before it is multiplied: a long time at a high rate is more than an int64 holds.
	if enough := (limit.full-level)/limit.refill + 1; elapsed > enough {
		elapsed = enough
	}
	level += elapsed * limit.refill
	if level > limit.full {
		return limit.full
	}
	return level
}

// take takes as many of the tokens asked for as there are, and returns how many it took and the level that is left. A
// refusal changes nothing but the time of a clock that was set back.
func (b *bucket) take(limit *Limit, asked, now int64) (taken, level int64) {
	level = b.refilled(limit, now)
	taken = level / limit.period
	if taken > asked {
		taken = asked
	}
	level -= taken * limit.period
	if taken > 0 || now < b.at {
		b.level, b.at, b.period = level, now, limit.period
	}
	return taken, level
}
