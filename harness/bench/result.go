package main

import (
	"fmt"
	"slices"
	"strings"
)

// result is all rounds of one workload.
type result struct {
	Workload workload                       `json:"workload"`
	Samples  map[contender][]sample         `json:"samples"`
	Medians  map[contender]map[string]stats `json:"medians"`
	Ratios   map[string]stats               `json:"ratios"` // of the plugin to the baseline
	Bounds   []checkedBound                 `json:"bounds"`
	order    []contender
}

// stats are the median, the minimum and the maximum of some values.
type stats struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

func statsOf(values []float64) stats {
	values = slices.Sorted(slices.Values(values))
	n := len(values)
	return stats{(values[(n-1)/2] + values[n/2]) / 2, values[0], values[n-1]}
}

var columns = []struct {
	name   string
	figure func(sample) float64
}{
	{"cpu", sample.cpu},
	{"traefikCPU", func(s sample) float64 { return s.TraefikCPU }},
	{"redisCPU", func(s sample) float64 { return s.RedisCPU }},
	{"redisCalls", func(s sample) float64 { return s.RedisCalls }},
	{"objects", func(s sample) float64 { return s.Objects }},
	{"bytes", func(s sample) float64 { return s.Bytes }},
	{"perSecond", func(s sample) float64 { return s.PerSecond }},
	{"p50", func(s sample) float64 { return s.P50 }},
	{"p99", func(s sample) float64 { return s.P99 }},
}

// summarize computes the medians and the ratios. A ratio is that of the medians; its minimum and maximum are those of the rounds.
func (r *result) summarize() {
	r.Medians = map[contender]map[string]stats{}
	for _, c := range r.order {
		r.Medians[c] = map[string]stats{}
		for _, column := range columns {
			var values []float64
			for _, s := range r.Samples[c] {
				values = append(values, column.figure(s))
			}
			r.Medians[c][column.name] = statsOf(values)
		}
	}
	baseline := r.Workload.baseline()
	r.Ratios = map[string]stats{}
	for name, ratio := range map[string]func(figure func(contender, string) float64) float64{
		"added": func(of func(contender, string) float64) float64 {
			return (of(ours, "cpu") - of(none, "cpu")) / (of(baseline, "cpu") - of(none, "cpu"))
		},
		"whole": func(of func(contender, string) float64) float64 { return of(ours, "cpu") / of(baseline, "cpu") },
		"p99":   func(of func(contender, string) float64) float64 { return of(ours, "p99") / of(baseline, "p99") },
		"perSecond": func(of func(contender, string) float64) float64 {
			return of(ours, "perSecond") / of(baseline, "perSecond")
		},
	} {
		var rounds []float64
		for i := range r.Samples[ours] {
			rounds = append(rounds, ratio(func(c contender, name string) float64 { return r.value(c, name, i) }))
		}
		s := statsOf(rounds)
		s.Median = ratio(func(c contender, name string) float64 { return r.Medians[c][name].Median })
		r.Ratios[name] = s
	}
}

// value returns a figure of one round.
func (r *result) value(c contender, name string, round int) float64 {
	for _, column := range columns {
		if column.name == name {
			return column.figure(r.Samples[c][round])
		}
	}
	panic("unknown column " + name)
}

// table returns the result as text, with its bounds.
func (r *result) table() string {
	var b strings.Builder
	w := r.Workload
	fmt.Fprintf(&b, "\n%s: %s; capacity %d, %d per %s; %d connections", w.Name, w.Title, w.Capacity, w.Rate, w.Period, w.Connections)
	if w.Gateways > 1 {
		fmt.Fprintf(&b, " to %d gateways", w.Gateways)
	}
	fmt.Fprintf(&b, "\n  %-17s %8s %15s %8s %7s %8s %8s %7s %8s %8s %8s\n",
		"", "CPU µs", "(min-max)", "Traefik", "Redis", "calls", "objects", "KB", "req/s", "p50 µs", "p99 µs")
	for _, c := range r.order {
		m := r.Medians[c]
		fmt.Fprintf(&b, "  %-17s %8.1f %7.1f-%7.1f %8.1f %7.1f %8.4f %8s %7s %8.0f %8.0f %8.0f\n", c,
			m["cpu"].Median, m["cpu"].Min, m["cpu"].Max, m["traefikCPU"].Median, m["redisCPU"].Median, m["redisCalls"].Median,
			unknownIfZero("%.0f", m["objects"].Median), unknownIfZero("%.1f", m["bytes"].Median/1024), m["perSecond"].Median, m["p50"].Median, m["p99"].Median)
	}
	base := r.Medians[none]["cpu"].Median
	baseline := w.baseline()
	fmt.Fprintf(&b, "  added CPU: %s %.1f µs, ours %.1f µs\n", baseline, r.Medians[baseline]["cpu"].Median-base, r.Medians[ours]["cpu"].Median-base)
	fmt.Fprintf(&b, "  ratio of ours to %s: ", baseline)
	if w.refused == 0 { // the added CPU of a refused request may be negative, and then its ratio says nothing
		fmt.Fprintf(&b, "added CPU %s; ", r.Ratios["added"])
	}
	fmt.Fprintf(&b, "whole request %s; p99 %s; requests a second %s\n", r.Ratios["whole"], r.Ratios["p99"], r.Ratios["perSecond"])
	for _, bound := range r.Bounds {
		fmt.Fprintf(&b, "  bound: %s\n", bound)
	}
	return b.String()
}

// unknownIfZero formats a figure that is zero where it cannot be measured.
func unknownIfZero(format string, value float64) string {
	if value == 0 {
		return "-"
	}
	return fmt.Sprintf(format, value)
}

func (s stats) String() string { return fmt.Sprintf("%.2f (%.2f to %.2f)", s.Median, s.Min, s.Max) }
