// Package window checks the limiter's promise: in every window of length t, at most capacity + rate x t.
package window

import (
	"math"
	"slices"
	"time"
)

// Span is an admitted request: decided at some time from Start to End, in microseconds of one clock.
type Span struct {
	Start, End int64
	Tokens     int64 // that it took
}

// Most returns the largest number of tokens that were taken in any window beyond what the rate, in tokens a period, gave it. The promise is
// kept while that is at most the capacity. A window counts only the spans that lie in it entirely: those were decided in it for sure.
func Most(spans []Span, rate int64, period time.Duration) float64 {
	unit := period.Microseconds()
	byEnd := slices.SortedFunc(slices.Values(spans), func(a, b Span) int { return int(a.End - b.End) })
	ends := make([]int64, len(byEnd))
	for i, s := range byEnd {
		ends[i] = s.End
	}
	ends = slices.Compact(ends)
	byStart := slices.SortedFunc(slices.Values(spans), func(a, b Span) int { return int(b.Start - a.Start) })

	// A window begins at some span's start and ends at some span's end. We go through the starts from the last to the
	// first; sums holds, for each end, the tokens taken in the window from here to there, less the rate.
	sums := newTree(len(ends))
	most := int64(0)
	for i, s := range byStart {
		place, _ := slices.BinarySearch(ends, s.End)
		sums.open(place, -rate*s.End)
		sums.addFrom(place, s.Tokens*unit)
		if i+1 == len(byStart) || byStart[i+1].Start != s.Start {
			most = max(most, sums.most()+rate*s.Start)
		}
	}
	return float64(most) / float64(unit)
}

// tree is a row of numbers, all closed at first, that knows the largest of those that are open.
type tree struct {
	size  int
	nodes []node
}

type node struct {
	most int64 // of the open ones below, with what was added below
	add  int64 // to all below
}

const closed = math.MinInt64 / 2

func newTree(n int) *tree {
	size := 1
	for size < n {
		size *= 2
	}
	t := &tree{size: size, nodes: make([]node, 2*size)}
	for i := range t.nodes {
		t.nodes[i].most = closed
	}
	return t
}

// open opens a number, unless it is open already, with the given value in addition to what was added to it.
func (t *tree) open(place int, value int64) {
	n := &t.nodes[t.size+place]
	if n.most == closed {
		n.most = value
		t.lift(t.size + place)
	}
}

// addFrom adds to the number at a place and to all after it.
func (t *tree) addFrom(place int, value int64) {
	i := t.size + place
	t.nodes[i].add += value
	for ; i > 1; i /= 2 {
		if i%2 == 0 {
			t.nodes[i+1].add += value
		}
	}
	t.lift(t.size + place)
}

// lift computes the nodes above one again.
func (t *tree) lift(i int) {
	for i /= 2; i > 0; i /= 2 {
		t.nodes[i].most = max(t.value(2*i), t.value(2*i+1))
	}
}

func (t *tree) value(i int) int64 {
	if t.nodes[i].most == closed {
		return closed
	}
	return t.nodes[i].most + t.nodes[i].add
}

func (t *tree) most() int64 { return t.value(1) }
