package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestStatsOf(t *testing.T) {
	require.Equal(t, stats{3, 1, 9}, statsOf([]float64{9, 1, 3}))
	require.Equal(t, stats{2.5, 1, 4}, statsOf([]float64{4, 1, 3, 2}))
}

func TestInTurn_givesEveryContenderEveryTurn(t *testing.T) {
	for _, of := range []int{3, 4} {
		places := make([]map[int]bool, of)
		for round := range 7 {
			seen := map[int]bool{}
			for place := range of {
				who := inTurn(round, place, of)
				seen[who] = true
				if places[who] == nil {
					places[who] = map[int]bool{}
				}
				places[who][place] = true
			}
			require.Len(t, seen, of, "round %d", round)
		}
		for who := range of {
			require.Greater(t, len(places[who]), 1, "contender %d of %d always has the same place", who, of)
		}
	}
}

func TestJoin(t *testing.T) {
	require.Equal(t,
		sample{Requests: 400, Refused: 40, Upstream: 360, Clients: 30, Keys: 50, PerSecond: 200, TraefikCPU: 70, RedisCPU: 10, RedisCalls: 0.25,
			Objects: 475, Bytes: 950, P50: 2, P99: 10},
		join([]sample{
			{Requests: 100, Refused: 10, Upstream: 90, Clients: 20, Keys: 25, PerSecond: 100, TraefikCPU: 100, RedisCPU: 40, RedisCalls: 1,
				Objects: 400, Bytes: 800, P50: 1, P99: 5},
			{Requests: 300, Refused: 30, Upstream: 270, Clients: 30, Keys: 50, PerSecond: 300, TraefikCPU: 60, RedisCPU: 0, RedisCalls: 0,
				Objects: 500, Bytes: 1000, P50: 3, P99: 15},
		}))
}

func TestClients_expected(t *testing.T) {
	require.InDelta(t, 1, hot.expected(5000), 1e-9)
	require.InDelta(t, 200000*(1-0.6065), uniform.expected(100000), 50)
	require.Less(t, zipf.expected(20000), 5000.0)
}

func TestResult_ratios(t *testing.T) {
	r := &result{Workload: workloads[0], order: []contender{none, builtin, ours}, Samples: map[contender][]sample{
		none:    {{TraefikCPU: 60, P99: 1, PerSecond: 9}, {TraefikCPU: 70, P99: 1, PerSecond: 9}, {TraefikCPU: 64, P99: 1, PerSecond: 9}},
		builtin: {{TraefikCPU: 90, RedisCPU: 20, P99: 4, PerSecond: 5}, {TraefikCPU: 90, RedisCPU: 22, P99: 4, PerSecond: 5}, {TraefikCPU: 92, RedisCPU: 24, P99: 4, PerSecond: 5}},
		ours:    {{TraefikCPU: 85, P99: 2, PerSecond: 10}, {TraefikCPU: 88, P99: 2, PerSecond: 10}, {TraefikCPU: 90, P99: 2, PerSecond: 10}},
	}}
	r.summarize()
	require.InDelta(t, 24.0/48, r.Ratios["added"].Median, 1e-9)
	require.InDelta(t, 18.0/42, r.Ratios["added"].Min, 1e-9)
	require.InDelta(t, 26.0/52, r.Ratios["added"].Max, 1e-9)
	require.InDelta(t, 88.0/112, r.Ratios["whole"].Median, 1e-9)
	require.InDelta(t, 0.5, r.Ratios["p99"].Median, 1e-9)
	require.InDelta(t, 2, r.Ratios["perSecond"].Median, 1e-9)
}

// TestCheck_rejectsInvalidSamples changes one figure of a valid sample at a time.
func TestCheck_rejectsInvalidSamples(t *testing.T) {
	open, flood, hot := workloads[5], workloads[4], workloads[0]
	goodHot := sample{Requests: 20000, Upstream: 20003, Clients: 1, Keys: 1, RedisCalls: 0.001}
	goodFlood := sample{Requests: 20000, Refused: 19970, Upstream: 30, Clients: 1, Keys: 1, RedisCalls: 0.002}
	goodOpen := sample{Requests: 20000, Refused: 20000, Clients: 1}
	cases := []struct {
		name   string
		w      workload
		c      contender
		s      sample
		change func(*sample)
		says   string
	}{
		{"too few requests", hot, ours, goodHot, func(s *sample) { s.Requests = 400 }, "only 400"},
		{"the upstream saw less", hot, ours, goodHot, func(s *sample) { s.Upstream = 19990 }, "reached the upstream"},
		{"the upstream saw more", hot, ours, goodHot, func(s *sample) { s.Upstream = 20100 }, "reached the upstream"},
		{"a refusal below the limit", hot, ours, goodHot, func(s *sample) { s.Refused, s.Upstream = 1, 19999 }, "below the limit"},
		{"a refusal without a middleware", hot, none, goodHot, func(s *sample) { s.Refused, s.Upstream = 1, 19999 }, "without a limiter"},
		{"a Redis call without a middleware", hot, none, goodHot, func(s *sample) { s.RedisCalls = 0.01 }, "without a limiter"},
		{"a built-in limiter without Redis", hot, builtin, goodHot, func(*sample) {}, "does not use Redis"},
		{"a plugin without Redis", hot, ours, goodHot, func(s *sample) { s.RedisCalls = 0 }, "never calls Redis"},
		{"no key in Redis", hot, ours, goodHot, func(s *sample) { s.Keys = 0 }, "0 keys"},
		{"a flood that passes", flood, ours, goodFlood, func(s *sample) { s.Refused, s.Upstream = 10000, 10000 }, "only 0.500"},
		{"more than the limit", flood, ours, goodFlood, func(s *sample) { s.Refused, s.Upstream = 19800, 200 }, "over the limit"},
		{"a request that passes an open circuit", open, ours, goodOpen, func(s *sample) { s.Refused, s.Upstream = 19999, 1 }, "refused"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if c.c == ours {
				require.NoError(t, c.w.check(c.c, c.s, 2*time.Second), "before the change")
			}
			c.change(&c.s)
			require.ErrorContains(t, c.w.check(c.c, c.s, 2*time.Second), c.says)
		})
	}
}

func TestWorkload_allowsStatus(t *testing.T) {
	open, flood, hot := workloads[5], workloads[4], workloads[0]
	for _, row := range []struct {
		w       workload
		c       contender
		answers []int
	}{
		{hot, none, []int{200}},
		{hot, ours, []int{200}},
		{flood, none, []int{200}},
		{flood, ours, []int{200, 429}},
		{open, noop, []int{200}},
		{open, builtinOpen, []int{503}},
		{open, ours, []int{503}},
	} {
		for _, status := range []int{200, 404, 429, 500, 502, 503} {
			require.Equal(t, slices.Contains(row.answers, status), row.w.allowsStatus(row.c, status), "%s, %s: %d", row.w.Name, row.c, status)
		}
	}
}

func TestTable_comparesAddedCPUOnlyWhereRequestsPass(t *testing.T) {
	for _, w := range workloads {
		r := &result{Workload: w, order: []contender{none, w.baseline(), ours}, Samples: map[contender][]sample{}}
		for _, c := range r.order {
			r.Samples[c] = []sample{{TraefikCPU: 50, RedisCPU: 10, PerSecond: 5000}}
		}
		r.Samples[none] = []sample{{TraefikCPU: 40, PerSecond: 5000}}
		r.summarize()
		require.Equal(t, w.refused == 0, strings.Contains(r.table(), ": added CPU 1.00 (1.00 to 1.00); whole request"), r.table())
		require.Contains(t, r.table(), "whole request 1.00 (1.00 to 1.00); p99")
		require.Regexp(t, `\n  ours +60\.0 +60\.0- +60\.0 +50\.0 +10\.0 +0\.0000 +- +- `, r.table())
	}
}
