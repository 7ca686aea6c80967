package breaker

// slot is a count of outcomes in a tenth of some time.
type slot struct {
	start                  int64
	requests, failed, slow int64
}

const maxSlots = 20 // more than a window has: two policies may have windows of different lengths

// liveSlots returns the slots that are not older than an age. Those of the future are left out: the clock was set back.
func liveSlots(slots []slot, age, now int64) []slot {
	var live []slot
	for _, s := range slots {
		if s.start > now-age && s.start <= now {
			live = append(live, s)
		}
	}
	return live
}

// addToSlots returns the live slots with a count added to the slot of now, or to one that has begun since: two policies may have different ages.
func addToSlots(slots []slot, age int64, count slot, now int64) []slot {
	live := liveSlots(slots, age, now)
	start := now - now%(age/10)
	if len(live) == 0 || live[len(live)-1].start < start {
		live = append(live, slot{start: start})
	}
	last := &live[len(live)-1]
	last.requests += count.requests
	last.failed += count.failed
	last.slow += count.slow
	if len(live) > maxSlots {
		live = live[len(live)-maxSlots:]
	}
	return live
}

// sumOf returns the sum of the live slots.
func sumOf(slots []slot, age, now int64) slot {
	var sum slot
	for _, s := range liveSlots(slots, age, now) {
		sum.requests += s.requests
		sum.failed += s.failed
		sum.slow += s.slow
	}
	return sum
}
