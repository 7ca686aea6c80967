// Package bucketmodel is the rate limiter's script once more, in Go, on the caller's clock. The limiter's tests compare the two; the
// simulation runs a fleet on it.
package bucketmodel

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/resilient-gateway/resilience/internal/store"
)

// Model is a Redis that holds buckets. It is not safe for concurrent use.
type Model struct {
	buckets   map[string]*bucket
	foreign   map[string]bool // keys that hold something that is not a bucket
	penalties map[string]penalty
	latest    map[string]latest
	registry  map[string]registry
}

// New returns an empty one.
func New() *Model {
	return &Model{buckets: map[string]*bucket{}, foreign: map[string]bool{}, penalties: map[string]penalty{}, latest: map[string]latest{},
		registry: map[string]registry{}}
}

// limit and terms are the first two words of the script's arguments.
type (
	limit struct{ capacity, refill, period, standing int64 }
	terms struct{ short, long, minimum, share, most, part int64 }
	ask   struct{ asked, short, long, ended, unused int64 }
)

// Run does what the script does with these keys and arguments at a time of Redis's clock, in microseconds, and returns the integers of its
// answer.
func (m *Model) Run(now int64, keys, args []string) []int64 {
	words := numbers(args[0])
	l := limit{capacity: words[0], refill: words[1], period: words[2]}
	r := counts{}
	if len(words) > 3 {
		l.standing = words[3]
		r = m.counts(keys[len(keys)-1], now)
		keys = keys[:len(keys)-1]
	}
	words = numbers(args[1])
	t := terms{short: words[0], long: words[1], minimum: words[2], share: words[3], most: words[4], part: words[5]}
	var answer []int64
	for i, key := range keys {
		words := append(numbers(args[2+i]), 0, 0, 0)
		a := ask{asked: words[0], short: words[1], long: words[2], ended: words[3], unused: words[4]}
		answer = append(answer, m.take(key, now, l, t, a, r)...)
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

func (m *Model) take(key string, now int64, l limit, t terms, a ask, r counts) []int64 {
	b := m.load(key, now, r)
	own := b.use("default", l, now)
	b.settle(now, t)
	if a.ended != 0 {
		b.end(a.ended, a.unused)
	}
	taken := max(0, min(a.asked, floorDiv(own.level, l.period)))
	own.level -= taken * l.period
	b.changed = b.changed || taken > 0
	leased, number, length := b.lease(now, []*level{own}, t, a.short, a.long)
	answer := []int64{taken, own.level, leased}
	if leased > 0 {
		answer = append(answer, number, length)
	}
	m.save(key, b, now)
	return answer
}

// inUnits converts a level that counts in another period to the limit's units. More than the capacity is cut to it: an int64 may not hold
// it.
func inUnits(level, period int64, l limit) int64 {
	tokens := floorDiv(level, period)
	if tokens >= l.capacity {
		return l.capacity * l.period
	}
	rest := float64(level-tokens*period) / float64(period) * float64(l.period)
	return tokens*l.period + int64(rest)
}

// floorDiv divides and rounds down, also below 0.
func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
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
	if number == 2 && len(args) == 6 && !strings.Contains(args[4], " ") {
		return m.Register(now, keys, args)
	}
	if !strings.Contains(args[0], " ") {
		return m.Penalize(now, keys, args) // the others name several numbers there
	}
	if strings.Contains(args[1], ":") {
		return m.Draw(now, keys, args) // only draw names limits there
	}
	for len(args) < 2+len(keys) {
		args = append(args, "1 0")
	}
	l, terms := numbers(args[0]), numbers(args[1])
	var answer, shared []string
	if len(l) > 3 {
		shared = keys[len(keys)-1:]
		keys = keys[:len(keys)-1]
	}
	for i, key := range keys {
		numbers := m.Run(now, append([]string{key}, shared...), []string{args[0], args[1], args[2+i]})
		word := strings.Trim(strings.ReplaceAll(fmt.Sprint(numbers), " ", ":"), "[]")
		asked, _, _ := strings.Cut(args[2+i], " ")
		taken, level, leased := numbers[0], numbers[1], numbers[2]
		nearlyFull := floorDiv(level, l[2]) >= terms[2] && float64(level) >= float64(l[0]*l[2])/8*float64(terms[6])
		if asked == strconv.FormatInt(taken, 10) && leased == 0 && nearlyFull {
			word = "+"
		}
		answer = append(answer, word)
	}
	return strings.Join(answer, " ")
}
