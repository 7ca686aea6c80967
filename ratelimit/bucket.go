package ratelimit

// bucket is a token bucket in this process. It uses the script's arithmetic on this process's clock. The zero value is not a bucket (see
// assumeFullLocked). It is not safe for concurrent use: the limiter's Mu guards the bucket of a lease.
type bucket struct {
	level  int64 // in units of a token / period
	at     int64 // when the bucket had that level, microseconds
	period int64 // of the limit that defines the units, microseconds
}

// refilled returns the level at the time now, in the units of the given limit.
func (b *bucket) refilled(limit *Limit, now int64) int64 {
	level := b.level
	if b.period != limit.period {
		tokens := level / b.period
		if tokens >= limit.full/limit.period {
			return limit.full // the units might overflow an int64
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
	// Bound elapsed before the multiplication: a long time at a high rate overflows an int64.
	if enough := (limit.full-level)/limit.refill + 1; elapsed > enough {
		elapsed = enough
	}
	level += elapsed * limit.refill
	if level > limit.full {
		return limit.full
	}
	return level
}

// take takes the tokens asked for, or as many as the bucket has. It returns how many it took and the remaining level. If it takes none,
// it changes the bucket only if the clock was set back.
func (b *bucket) take(limit *Limit, asked, now int64) (taken, level int64) {
	level = b.refilled(limit, now)
	taken = level / limit.period
	if taken > asked {
		taken = asked
	}
	if taken < 0 {
		taken = 0 // Redis reported a level below 0: joins have taken tokens that the bucket did not have
	}
	level -= taken * limit.period
	if taken > 0 || now < b.at {
		b.level, b.at, b.period = level, now, limit.period
	}
	return taken, level
}
