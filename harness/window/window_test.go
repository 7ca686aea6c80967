package window

import (
	"math/rand"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestMost_steps(t *testing.T) {
	second := time.Second.Microseconds()
	cases := []struct {
		name  string
		spans []Span
		most  float64
	}{
		{"none", nil, 0},
		{"one", []Span{{0, 0, 1}}, 1},
		{"two at once", []Span{{0, 0, 1}, {0, 0, 1}}, 2},
		{"two a tenth of a second apart, at ten a second", []Span{{0, 0, 1}, {second / 10, second / 10, 1}}, 1},
		{"two half as far apart", []Span{{0, 0, 1}, {second / 20, second / 20, 1}}, 1.5},
		{"two that may have been so far apart", []Span{{0, 0, 1}, {second / 20, second / 10, 1}}, 1},
		{"a burst after a long rest", []Span{{0, 0, 1}, {9 * second, 9 * second, 7}}, 7},
		{"a large one, and the rate from then on", []Span{{0, 0, 100}, {second, second, 10}}, 100},
		{"a large one, and more than the rate", []Span{{0, 0, 100}, {second, second, 11}}, 101},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			require.InDelta(t, c.most, Most(c.spans, 10, time.Second), 1e-9)
		})
	}
}

// TestMost_everyWindow compares with a search through every window.
func TestMost_everyWindow(t *testing.T) {
	random := rand.New(rand.NewSource(1))
	for range 500 {
		var spans []Span
		for range random.Intn(40) {
			start := random.Int63n(1000)
			spans = append(spans, Span{start, start + random.Int63n(50), 1 + random.Int63n(3)})
		}
		const rate, period = 3, 70 * time.Microsecond
		most := 0.0
		for _, from := range spans {
			for _, to := range spans {
				sum := 0.0
				for _, s := range spans {
					if s.Start >= from.Start && s.End <= to.End {
						sum += float64(s.Tokens)
					}
				}
				if sum > 0 {
					most = max(most, sum-rate*float64(to.End-from.Start)/70)
				}
			}
		}
		require.InDelta(t, most, Most(spans, rate, period), 1e-9)
	}
}
