package main

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// measured makes a result with ratios and calls in its medians.
func measured(name string, ratios map[string]float64, calls float64) *result {
	i := slices.IndexFunc(workloads, func(w workload) bool { return w.Name == name })
	r := &result{Workload: workloads[i], Ratios: map[string]stats{}, Medians: map[contender]map[string]stats{ours: {"redisCalls": {Median: calls}}}}
	for ratio, value := range ratios {
		r.Ratios[ratio] = stats{Median: value}
	}
	return r
}

func TestCheckBounds(t *testing.T) {
	main, shipped := configurations[0], configurations[2]
	const full, short = false, true
	for _, row := range []struct {
		name     string
		c        configuration
		short    bool
		workload string
		ratios   map[string]float64
		calls    float64
		checked  []string
		fails    string // one text that the error contains; empty: the run does not fail
		repeat   bool
	}{
		{
			name: "a full run fails by no ratio", c: main, short: full, workload: "a", ratios: map[string]float64{"added": 0.71, "p99": 1.15},
			checked: []string{
				"Redis calls a request: 0.000, at most 0.02: met",
				"added CPU, ratio to built-in: 0.710, at most 0.70: not met",
				"p99, ratio to built-in: 1.150, at most 1.15: met",
			},
		},
		{
			name: "a full run fails by a count", c: main, short: full, workload: "d", ratios: map[string]float64{"whole": 0.6, "p99": 0.4}, calls: 0.03,
			checked: []string{
				"Redis calls a request: 0.030, at most 0.02: not met",
				"CPU of the whole request, ratio to built-in: 0.600, at most 0.60: met",
				"p99, ratio to built-in: 0.400, at most 1.15: met",
			},
			fails: "d: Redis calls a request: 0.030",
		},
		{
			name: "a bound may be a minimum", c: main, short: full, workload: "c256", ratios: map[string]float64{"perSecond": 0.89, "p99": 1.2},
			checked: []string{
				"Redis calls a request: 0.000, at most 0.05: met",
				"requests a second, ratio to built-in: 0.890, at least 1.00: not met",
				"p99, ratio to built-in: 1.200, at most 1.15: not met",
			},
		},
		{
			name: "other cases have counts only", c: shipped, short: full, workload: "a", ratios: map[string]float64{"added": 9, "p99": 9}, calls: 0.021,
			checked: []string{"Redis calls a request: 0.021, at most 0.02: not met"},
			fails:   "a: Redis calls",
		},
		{
			name: "the short form is loose", c: main, short: short, workload: "a", ratios: map[string]float64{"added": 2, "p99": 9},
			checked: []string{
				"Redis calls a request: 0.000, at most 0.02: met",
				"added CPU, ratio to built-in: 2.000, at most 2.50: met",
			},
		},
		{
			name: "the short form fails by a ratio, after a second attempt", c: main, short: short, workload: "a", ratios: map[string]float64{"added": 2.6},
			checked: []string{
				"Redis calls a request: 0.000, at most 0.02: met",
				"added CPU, ratio to built-in: 2.600, at most 2.50: not met",
			},
			fails: "a: added CPU", repeat: true,
		},
		{
			name: "the short form fails by a count at once", c: main, short: short, workload: "d", ratios: map[string]float64{"whole": 2}, calls: 1,
			checked: []string{
				"Redis calls a request: 1.000, at most 0.02: not met",
				"CPU of the whole request, ratio to built-in: 2.000, at most 1.20: not met",
			},
			fails: "d: Redis calls",
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := measured(row.workload, row.ratios, row.calls)
			r.Bounds = checkBounds(r, row.c, row.short)
			var checked []string
			for _, b := range r.Bounds {
				checked = append(checked, b.String())
			}
			require.Equal(t, row.checked, checked)
			if row.fails == "" {
				require.NoError(t, r.failures())
			} else {
				require.ErrorContains(t, r.failures(), row.fails)
			}
			require.Equal(t, row.repeat, r.worthRepeating())
		})
	}
}

func TestBounds_nameWorkloadsThatExist(t *testing.T) {
	for _, b := range slices.Concat(ratioBounds, callBounds) {
		require.Contains(t, workloadNames(), b.workload)
	}
}

func TestReport_summaryListsBoundsNotMet(t *testing.T) {
	r := measured("a", map[string]float64{"added": 0.8, "p99": 1}, 0)
	r.Bounds = checkBounds(r, configurations[0], false)
	all := report{Cases: []*oneCase{{Configuration: configurations[0], Results: []*result{r}}}}
	require.Equal(t, "\n2 of 3 bounds met\n  default, a: added CPU, ratio to built-in: 0.800, at most 0.70: not met\n", all.summary())
	require.Empty(t, (&report{}).summary())
}
