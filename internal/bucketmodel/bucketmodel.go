// Package bucketmodel is the rate limiter's script once more, in Go, on the caller's clock. The limiter's tests compare the two; the
// simulation runs a fleet on it.
package bucketmodel

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/resilient-gateway/resilience/internal/store"
)

// Model is a Redis that holds buckets. It is not safe for concurrent use.
type Model struct {
	buckets map[string]*bucket
}

// New returns an empty one.
func New() *Model { return &Model{buckets: map[string]*bucket{}} }

// limit and terms are the first two words of the script's arguments.
type (
	limit struct{ capacity, refill, period int64 }
	terms struct{ short, long, minimum, share, most, part int64 }
	ask   struct{ asked, short, long, ended, unused int64 }
)

// bucket is the value of a key, gone when the key would have expired.
type bucket struct {
	level, at, period int64
	leases            []lease
	due               int64
}

type lease struct{ deadline, tokens int64 }

// Run does what the script does with these keys and arguments at a time of Redis's clock, in microseconds, and returns the integers of its
// answer.
func (m *Model) Run(now int64, keys, args []string) []int64 {
	words := numbers(args[0])
	l := limit{capacity: words[0], refill: words[1], period: words[2]}
	words = numbers(args[1])
	t := terms{short: words[0], long: words[1], minimum: words[2], share: words[3], most: words[4], part: words[5]}
	var answer []int64
	for i, key := range keys {
		words := append(numbers(args[2+i]), 0, 0, 0)
		a := ask{asked: words[0], short: words[1], long: words[2], ended: words[3], unused: words[4]}
		answer = append(answer, m.take(key, now, l, t, a)...)
	}
	return answer
}

func numbers(words string) (all []int64) {
	for _, word := range strings.Fields(words) {
		all = append(all, number(word))
	}
	return all
}

func number(word string) int64 {
	n, err := strconv.ParseInt(word, 10, 64)
	if err != nil {
		panic("bucketmodel: the script takes numbers, not " + word)
	}
	return n
}

func (m *Model) take(key string, now int64, l limit, t terms, a ask) []int64 {
	b := &bucket{level: l.capacity * l.period, at: now, period: l.period}
	if kept := m.buckets[key]; kept != nil && kept.due > now {
		// A copy: where nothing is taken nothing is written, not even the time.
		*b = *kept
		b.leases = slices.Clone(kept.leases)
	} else {
		delete(m.buckets, key)
	}
	changed := b.settle(now, l, t)
	if a.ended != 0 {
		b.end(a.ended, a.unused, l)
		changed = true
	}
	left := b.level / l.period
	taken := min(a.asked, left)
	left -= taken
	leased, length := int64(0), t.short
	if left >= t.minimum && int64(len(b.leases)) < t.most {
		leased = min(a.short, left/t.share)
		// Half of the tokens that are left for long leases, which part may divide unevenly.
		if long := min(a.long, left/t.share, (l.capacity-t.part*b.leased())/(2*t.part)); long > 0 && long >= leased {
			leased, length = long, t.long
		}
	}
	b.level -= (taken + leased) * l.period
	answer := []int64{taken, b.level, leased}
	if leased > 0 {
		answer = append(answer, b.lease(now+length, leased), length)
	}
	if changed || taken+leased > 0 {
		missing := l.capacity*l.period - b.level
		idle := (missing+1000*l.refill-1)/(1000*l.refill) + 1
		if len(b.leases) > 0 {
			idle += (b.leases[len(b.leases)-1].deadline - now + 999) / 1000
		}
		b.due = now + idle*1000
		m.buckets[key] = b
	}
	return answer
}

// settle brings the bucket up to now: each lease that is over leaves the sum at its own time.
func (b *bucket) settle(now int64, l limit, t terms) (setBack bool) {
	if b.period != l.period {
		b.level = inUnits(b.level, b.period, l)
		b.period = l.period
	}
	setBack = now < b.at
	if setBack {
		b.at = now
	}
	leased := b.leased()
	for leased >= l.capacity {
		last := len(b.leases) - 1
		leased -= b.leases[last].tokens
		b.leases = b.leases[:last]
	}
	var kept []lease
	for _, lease := range b.leases {
		if lease.deadline <= now {
			b.refill(lease.deadline, leased, l)
			leased -= lease.tokens
			continue
		}
		lease.deadline = min(lease.deadline, now+t.long+t.most)
		kept = append(kept, lease)
	}
	b.leases = kept
	b.refill(now, leased, l)
	return setBack
}

// inUnits converts a level that counts in another period to the limit's units. More than the capacity is cut to it: an int64 may not hold
// it.
func inUnits(level, period int64, l limit) int64 {
	tokens := level / period
	if tokens >= l.capacity {
		return l.capacity * l.period
	}
	rest := float64(level-tokens*period) / float64(period) * float64(l.period)
	return tokens*l.period + int64(rest)
}

// refill refills until a time, up to where the level and the tokens leased make the capacity.
func (b *bucket) refill(time, leased int64, l limit) {
	full := max(0, l.capacity-leased) * l.period
	if b.level >= full {
		b.level = full
	} else if passed := time - b.at; passed > (math.MaxInt64-b.level)/l.refill {
		b.level = full
	} else if passed > 0 {
		b.level = min(full, b.level+passed*l.refill)
	}
	b.at = max(b.at, time)
}

// lease inserts a lease in the order of the deadlines, and returns its own: one that no other lease has.
func (b *bucket) lease(deadline, tokens int64) int64 {
	place := 0
	for place < len(b.leases) && b.leases[place].deadline <= deadline {
		if b.leases[place].deadline == deadline {
			deadline++
		}
		place++
	}
	b.leases = slices.Insert(b.leases, place, lease{deadline, tokens})
	return deadline
}

// end ends a lease, and returns its unused tokens to the bucket.
func (b *bucket) end(number, unused int64, l limit) {
	for i, lease := range b.leases {
		if lease.deadline != number {
			continue
		}
		b.leases = slices.Delete(b.leases, i, i+1)
		b.level += min(unused, lease.tokens) * l.period
		b.level = min(b.level, max(0, l.capacity-b.leased())*l.period)
		return
	}
}

func (b *bucket) leased() (sum int64) {
	for _, lease := range b.leases {
		sum += lease.tokens
	}
	return sum
}

// Serve answers a limiter's call as Redis would at that time.
func (m *Model) Serve(now int64, call *store.Call) {
	call.Answer, call.Err = m.Answer(now, call.Number, call.Words), nil
}

// Answer returns the script's answer to a call, given as it is sent: some keys, and the arguments.
func (m *Model) Answer(now int64, number int, wire []string) string {
	var words []string
	for _, word := range wire {
		_, text, _ := strings.Cut(word, "\r\n")
		words = append(words, text)
	}
	keys, args := words[:number], words[number:]
	for len(args) < 2+len(keys) {
		args = append(args, "1 0")
	}
	l, terms := numbers(args[0]), numbers(args[1])
	var answer []string
	for i, key := range keys {
		numbers := m.Run(now, []string{key}, []string{args[0], args[1], args[2+i]})
		word := strings.Trim(strings.ReplaceAll(fmt.Sprint(numbers), " ", ":"), "[]")
		asked, _, _ := strings.Cut(args[2+i], " ")
		taken, level, leased := numbers[0], numbers[1], numbers[2]
		nearlyFull := level/l[2] >= terms[2] && float64(level) >= float64(l[0]*l[2])/8*float64(terms[6])
		if asked == strconv.FormatInt(taken, 10) && leased == 0 && nearlyFull {
			word = "+"
		}
		answer = append(answer, word)
	}
	return strings.Join(answer, " ")
}
