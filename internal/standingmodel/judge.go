package standingmodel

import (
	"math"
	"sort"
)

// judge checks every window of time of every bucket: the requests that passed in it are at most the capacity and what was refilled.
func (w *world) judge() Result {
	r := Result{Trace: w.trace, Standing: w.standing}
	for bucket := range w.admitted {
		own := inOrder(w.admitted[bucket])
		r.Admissions += tokensOf(own)
		r.Windows += len(own) * (len(own) + 1) / 2
		w.judgeLevel(&r, "default", own, w.limits)
		others := inOrder(w.others[bucket])
		r.Windows += len(others) * (len(others) + 1) / 2
		w.judgeLevel(&r, "other", others, [2]limit{w.other, w.other})
	}
	return r
}

// judgeLevel checks the windows of a level whose limit may have changed.
func (w *world) judgeLevel(r *Result, name string, admitted []admission, limits [2]limit) {
	excess := 0
	if len(w.failures) == 0 && w.reloads.from < 0 {
		excess = worstWindow(admitted, limits[0])
	} else {
		excess = w.worstOfFailures(admitted, limits)
	}
	if excess > r.Excess {
		r.Excess = excess
		r.Which = name
	}
}

// worstWindow returns by how many tokens, rounded up, the worst window is above a limit.
func worstWindow(admitted []admission, l limit) int {
	sum, most, worst := 0, 0, 0
	for i, a := range admitted {
		if begin := a.at - sum*l.token; i == 0 || begin > most {
			most = begin
		}
		sum += a.tokens
		if above := most + sum*l.token - a.at - l.capacity*l.token; above > worst {
			worst = above
		}
	}
	return (worst + l.token - 1) / l.token
}

// worstOfFailures is worstWindow if there were failures or a reload: windows that touch them may have more.
func (w *world) worstOfFailures(admitted []admission, limits [2]limit) int {
	worst := 0
	for i := range admitted {
		sum := 0
		for _, last := range admitted[i:] {
			sum += last.tokens
			allowed := w.allowed(span{admitted[i].at, last.at}, limits)
			if sum-allowed > worst {
				worst = sum - allowed
			}
		}
	}
	return worst
}

// allowed returns how many tokens a window may have.
func (w *world) allowed(window span, limits [2]limit) int {
	l := limits[0]
	switch {
	case w.reloads.from < 0 || window.until < w.reloads.from:
	case w.allLoaded() && window.from > w.reloads.until+larger(w.longest, w.leaseTime):
		l = limits[1]
	default:
		return math.MaxInt // as without standing leases: a key that was written under one limit may end too early for the other
	}
	tokens := l.capacity + (window.until-window.from)/l.token
	for _, f := range w.failures {
		if window.from <= f.span.until && window.until >= f.span.from {
			tokens += f.tokens
			if f.tokens == 0 {
				tokens += larger(limits[0].capacity, limits[1].capacity)
			}
		}
	}
	return tokens
}

// allLoaded reports whether all gateways have loaded the new limit.
func (w *world) allLoaded() bool {
	for _, g := range w.gateways {
		if g.limit != w.limits[1] {
			return false
		}
	}
	return true
}

// inOrder sorts admissions by time: a request that was suspended counts from when it read the clock.
func inOrder(admitted []admission) []admission {
	sort.SliceStable(admitted, func(i, j int) bool { return admitted[i].at < admitted[j].at })
	return admitted
}

func tokensOf(admitted []admission) (sum int) {
	for _, a := range admitted {
		sum += a.tokens
	}
	return sum
}
