package breaker

import (
	"strings"
	"time"

	"github.com/resilient-gateway/resilience/internal/store"
)

// How an operator has made the state, as the scripts number it.
const (
	forcedOpen   = 1
	forcedClosed = 2
)

// forcedNames are the same as Redis holds them.
var forcedNames = []string{"", "open", "closed"}

// For how long a state may be made by hand.
const (
	ShortestForce = time.Second
	LongestForce  = 30 * 24 * time.Hour
)

const longestReason = 200 // bytes

// ForceOpen opens the circuit by hand, and keeps it open for a time from 1 s to 30 days, whatever its probes would say. Then it sends probes.
// An error wraps store.ErrUnavailable, or is the script's own.
func (b *Breaker) ForceOpen(length time.Duration, reason string, policy *Policy, deadline time.Time) error {
	return b.force(forcedOpen, length, reason, policy, deadline)
}

// ForceClosed closes the circuit by hand, and keeps it closed for a time from 1 s to 30 days, whatever fails. Nothing is counted meanwhile.
func (b *Breaker) ForceClosed(length time.Duration, reason string, policy *Policy, deadline time.Time) error {
	return b.force(forcedClosed, length, reason, policy, deadline)
}

// EndForce ends what ForceOpen or ForceClosed has begun: an open circuit sends probes, and a closed one starts to count.
func (b *Breaker) EndForce(policy *Policy, deadline time.Time) error {
	return b.force(0, ShortestForce, "", policy, deadline)
}

// Forced returns the state that an operator has made, as this gateway knows it, and for how long it still holds; "": there is none.
func (b *Breaker) Forced() (state string, left time.Duration) {
	now := b.Now()
	b.Mu.Lock()
	defer b.Mu.Unlock()
	if b.machine.forced == 0 || b.machine.deadline <= now {
		return "", 0
	}
	return forcedNames[b.machine.forced], time.Duration(b.machine.deadline-now) * time.Microsecond
}

func (b *Breaker) force(state int64, length time.Duration, reason string, policy *Policy, deadline time.Time) error {
	if length < ShortestForce {
		length = ShortestForce
	}
	if length > LongestForce {
		length = LongestForce
	}
	if len(reason) > longestReason {
		reason = reason[:longestReason]
	}
	if b.Store == nil {
		b.forceLocal(state, length, reason, policy)
		return nil
	}
	name := forcedNames[state]
	if state == 0 {
		name = "auto"
	}
	requestedAt := b.Now()
	call := &store.Call{Script: forceScript, Keys: b.keys, Args: withArgs(policy, name, intArg(length.Microseconds()), reason)}
	call.Then = func(c *store.Call) { b.apply(c, requestedAt, policy) }
	return b.run(call, deadline)
}

func (b *Breaker) forceLocal(state int64, length time.Duration, reason string, policy *Policy) {
	now := b.Now()
	c := beginLocalChange(b)
	defer c.commit()
	b.machine.force(state, length.Microseconds(), now, policy)
	b.reason = reason
	b.reasonOf = b.machine.generation
}

// reasonScript returns the reason in a breaker's hash. It is asked for rarely, and so no part of what the other scripts answer.
var reasonScript = store.NewScript(`local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
	if fields[i] == 'reason' then
		return string.sub((string.gsub(fields[i + 1], '%c', ' ')), 1, 200)
	end
end
return ''
`)

// Reason returns why an operator has made the state. It asks Redis, and waits for the reply at most until the deadline. Without a reply it is
// the last one that this gateway knows of the state; "": none.
func (b *Breaker) Reason(deadline time.Time) string {
	b.Mu.Lock()
	generation := b.machine.generation
	b.Mu.Unlock()
	if b.Store != nil && !b.Store.IsUnavailable() {
		call := &store.Call{Script: reasonScript, Number: 1, Words: []string{store.Word(b.keys[0])}}
		b.Store.Run([]*store.Call{call}, deadline)
		if call.Err == nil {
			b.setReason(strings.ToValidUTF8(strings.TrimRight(call.Answer, "\r\n"), ""), generation)
		}
	}
	b.Mu.Lock()
	defer b.Mu.Unlock()
	if b.reasonOf != b.machine.generation {
		return ""
	}
	return b.reason
}

func (b *Breaker) setReason(reason string, generation int64) {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	b.reason = reason
	b.reasonOf = generation
}

// force makes the state, until a time has passed, or ends that if the state is 0.
func (m *machine) force(state, length, now int64, p *Policy) {
	m.advance(now, p)
	if state == 0 {
		m.endForced(now)
		return
	}
	if state == forcedOpen {
		m.trip(now, now, p)
	} else {
		m.enter(stateClosed, now)
	}
	m.forced = state
	m.forcedFor = length
	m.deadline = now + length
}

func (m *machine) endForced(now int64) {
	if m.forced == 0 {
		return
	}
	m.deadline = 0
	if m.forced == forcedOpen {
		m.deadline = now
	}
	m.forced = 0
	m.forcedFor = 0
}
