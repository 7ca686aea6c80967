// Package window checks the limiter's promise: in every window of length t, no more than capacity + rate x t.
package window

import (
	"math"
	"slices"
	"time"
)

// Span is a request that was let through: decided at some time from Start to End, in microseconds of any one clock.
type Span struct {
	Start, End int64
	Tokens     int64 // that it took
}

// Most returns the most tokens that any window saw taken beyond what rate, in tokens a period, gave it. The
// promise is kept as long as it is no more than the capacity. Only spans that lie in a window whole count for it: of those
// it is sure that they were decided in it.
func Most(spans []Span, rate int64, period time.Duration) float64 {
	unit := period.Microseconds()
	byEnd := slices.SortedFunc(slices.Values(spans), func(a, b Span) int { return int(a.End - b.End) })
	ends := make([]int64, len(byEnd))
	for i, s := range byEnd {
		ends[i] = s.End
	}
	ends = slices.Compact(ends)
	byStart := slices.SortedFunc(slices.Values(spans), func(a, b Span) int { return int(b.Start - a.Start) })

	// A window begins at some span's start and ends at some span's end. The starts are gone through from the last to the
	// first; sums holds, for each end, what the window from here to there has seen, less the rate.
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

// tree is a row of numbers, all of them shut at first, that tells the largest of those that are open.
type tree struct {
	size  int
	nodes []node
}

type node struct {
	most int64 // of the open ones below, with what was added below
	add  int64 // to all below
}

const shut = math.MinInt64 / 2

func newTree(n int) *tree {
	size := 1
	for size < n {
		size *= 2
	}
	t := &tree{size: size, nodes: make([]node, 2*size)}
	for i := range t.nodes {
		t.nodes[i].most = shut
	}
	return t
}

// open opens a number, unless it is open, at the given value on top of what was added to it.
func (t *tree) open(place int, value int64) {
	n := &t.nodes[t.size+place]
	if n.most == shut {
		n.most = value
		t.lift(t.size + place)
	}
}

// addFrom adds to the number at a place and to all behind it.
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

// lift works the nodes above one out anew.
func (t *tree) lift(i int) {
	for i /= 2; i > 0; i /= 2 {
		t.nodes[i].most = max(t.value(2*i), t.value(2*i+1))
	}
}

func (t *tree) value(i int) int64 {
	if t.nodes[i].most == shut {
		return shut
	}
	return t.nodes[i].most + t.nodes[i].add
}

func (t *tree) most() int64 { return t.value(1) }
