package breaker

import (
	"strconv"
	"time"
)

// Policy says when a breaker changes its state. It does not change and may be shared. It belongs to the caller and travels
// with each call: while a new configuration spreads, two gateways use different policies on one breaker.
type Policy struct {
	failureThreshold int64
	resetTimeout     int64 // microseconds
	successThreshold int64
	maxProbes        int64
	probeTimeout     int64 // microseconds
	rules            Rules
	own              *Policy  // of a gateway's own circuit; nil: it has none
	args             []string // the first arguments of each script
	kept             int64    // microseconds for which Redis keeps a circuit beyond its longest times, without a call
}

// Rules are what a policy may say beyond the numbers of NewPolicy. The zero value says nothing.
type Rules struct {
	// FailureAge is the age at which a failure in a row no longer counts, to a tenth of it. 0: it counts whatever its age.
	FailureAge time.Duration
	// HalfOpenFailures is how many failed probes open the circuit again. 0: one.
	HalfOpenFailures int64
	// Backoff makes resetTimeout longer each time that the circuit opens again before it was closed: it is the factor in thousandths, from 1100
	// to 10000, up to MaxReset. 0: it stays the same.
	Backoff  int64
	MaxReset time.Duration
	// Jitter makes the time that the circuit is open longer by up to that many per cent, from 0 to 100. A time below 0.1 s has none.
	Jitter int64
	// FailureRatio and SlowRatio open the circuit if that many per cent of the requests in the Window have failed, or were slow, and there
	// were MinimumRequests. 0: they do not. A failureThreshold of 0 leaves it to them alone.
	FailureRatio, SlowRatio int64
	Window                  time.Duration
	MinimumRequests         int64
	// MinGateways is how many gateways must have seen failures, or slow answers with a SlowRatio, in the Window or in a minute if there is none,
	// before the circuit opens for the fleet. 0: one. If it is more, each gateway has a circuit of this process, too, which Own says when to open.
	MinGateways int64
	// Ramp is how long the share of the requests that pass rises from none to all after the successful probes. 0: all pass at once.
	Ramp time.Duration
}

// How long Redis keeps a circuit beyond its longest times, without a call. Clients choose scopes, and so how many circuits there are.
const (
	keptFor      = int64(24 * time.Hour / time.Microsecond)
	scopeKeptFor = int64(10 * time.Minute / time.Microsecond)
)

const sameReset = 1000 // the Backoff that changes nothing

// NewPolicy returns a policy. failureThreshold consecutive failures open the circuit; resetTimeout later up to maxProbes
// probes pass at a time; successThreshold successful probes close the circuit, and one failed probe, or one without an
// answer after probeTimeout, opens it again. All arguments must be positive.
func NewPolicy(failureThreshold int64, resetTimeout time.Duration, successThreshold, maxProbes int64, probeTimeout time.Duration) *Policy {
	p := Policy{
		failureThreshold: failureThreshold,
		resetTimeout:     resetTimeout.Microseconds(),
		successThreshold: successThreshold,
		maxProbes:        maxProbes,
		probeTimeout:     probeTimeout.Microseconds(),
		kept:             keptFor,
	}
	return p.With(Rules{})
}

// With returns the policy with these rules.
func (p Policy) With(rules Rules) *Policy {
	if rules.HalfOpenFailures == 0 {
		rules.HalfOpenFailures = 1
	}
	if rules.Backoff == 0 {
		rules.Backoff = sameReset
	}
	if rules.Backoff == sameReset {
		rules.MaxReset = 0
	}
	if rules.MinGateways == 0 {
		rules.MinGateways = 1
	}
	if rules.FailureRatio+rules.SlowRatio == 0 {
		rules.Window = 0
		rules.MinimumRequests = 0
	}
	p.rules = rules
	p.args = nil
	for _, n := range []int64{p.failureThreshold, p.resetTimeout, p.successThreshold, p.maxProbes, p.probeTimeout, p.timeToLive()} {
		p.args = append(p.args, strconv.FormatInt(n, 10))
	}
	p.args = append(p.args, p.rulesText())
	p.own = nil
	if rules.MinGateways > 1 {
		alone := rules
		alone.MinGateways = 1
		p.own = p.With(alone)
	}
	return &p
}

// ForScopes returns the same policy for circuits of scopes, which Redis keeps for minutes instead of a day.
func (p Policy) ForScopes() *Policy {
	p.kept = scopeKeptFor
	return p.With(p.rules)
}

// Own returns the policy of the gateway's own circuit, or nil if it has none.
func (p *Policy) Own() *Policy { return p.own }

// Counts reports whether the policy needs the number of all requests: their outcomes are counted here and reported in bulk.
func (p *Policy) Counts() bool { return p.rules.Window > 0 }

// timeToLive returns how long Redis keeps the breaker without a call, in milliseconds.
func (p *Policy) timeToLive() int64 {
	longest := p.resetTimeout
	if most := p.rules.MaxReset.Microseconds(); most > longest {
		longest = most
	}
	longest += longest / 100 * p.rules.Jitter
	counted := p.rules.Window + p.rules.FailureAge + p.rules.Ramp
	return (p.kept + 2*(longest+p.probeTimeout) + counted.Microseconds()) / 1000
}

// rulesText returns the rules as the scripts take them.
func (p *Policy) rulesText() string {
	r := p.rules
	byDefault := Rules{HalfOpenFailures: 1, Backoff: sameReset, MinGateways: 1}
	if r == byDefault {
		return ""
	}
	text := ""
	for _, n := range []int64{r.FailureAge.Microseconds(), r.HalfOpenFailures, r.Backoff, r.MaxReset.Microseconds(), r.Jitter,
		r.FailureRatio, r.SlowRatio, r.Window.Microseconds(), r.MinimumRequests, r.MinGateways, r.Ramp.Microseconds()} {
		text += strconv.FormatInt(n, 10) + " "
	}
	return text[:len(text)-1]
}

// openFor returns how long a circuit is open that has this generation and has opened again so often, in microseconds.
func (p *Policy) openFor(generation, repeats int64) int64 {
	wait := p.resetTimeout
	most := p.rules.MaxReset.Microseconds()
	if most < wait {
		most = wait
	}
	for ; repeats > 0 && p.rules.Backoff != sameReset && wait < most; repeats-- {
		wait = wait/1000*p.rules.Backoff + wait%1000*p.rules.Backoff/1000
		if wait > most {
			wait = most
		}
	}
	share := generation % 1000003 * 7919 % 1000 // of the longest jitter, in thousandths
	return wait + wait/100000*p.rules.Jitter*share
}
