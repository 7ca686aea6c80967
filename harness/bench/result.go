package main

import (
	"fmt"
	"slices"
	"strings"
)

// result is all rounds of one workload.
type result struct {
	Workload workload
	Samples  map[contender][]sample
}

// median of a figure over the rounds, with the least and the most.
func (r *result) median(c contender, figure func(sample) float64) (median, least, most float64) {
	var values []float64
	for _, s := range r.Samples[c] {
		values = append(values, figure(s))
	}
	slices.Sort(values)
	return values[len(values)/2], values[0], values[len(values)-1]
}

func (r *result) table() string {
	var b strings.Builder
	w := r.Workload
	fmt.Fprintf(&b, "\n%s: %s; capacity %d, %d/s; %d connections\n", w.name, w.title, w.capacity, w.rate, w.connections)
	fmt.Fprintf(&b, "  %-17s %8s %15s %8s %8s %7s %9s %8s %8s\n", "", "CPU µs", "(least-most)", "Traefik", "Redis", "calls", "req/s", "p50 µs", "p99 µs")
	for _, c := range w.contenders() {
		cpu, least, most := r.median(c, sample.cpu)
		traefik, _, _ := r.median(c, func(s sample) float64 { return s.TraefikCPU })
		redis, _, _ := r.median(c, func(s sample) float64 { return s.RedisCPU })
		calls, _, _ := r.median(c, func(s sample) float64 { return s.RedisCalls })
		perSecond, _, _ := r.median(c, func(s sample) float64 { return s.PerSecond })
		p50, _, _ := r.median(c, func(s sample) float64 { return s.P50 })
		p99, _, _ := r.median(c, func(s sample) float64 { return s.P99 })
		fmt.Fprintf(&b, "  %-17s %8.1f %7.1f-%7.1f %8.1f %8.1f %7.4f %9.0f %8.0f %8.0f\n", c, cpu, least, most, traefik, redis, calls, perSecond, p50, p99)
	}
	base, _, _ := r.median(none, sample.cpu)
	rival := builtin
	if w.open {
		rival = builtinOpen
	}
	theirs, _, _ := r.median(rival, sample.cpu)
	mine, _, _ := r.median(ours, sample.cpu)
	fmt.Fprintf(&b, "  added: %s %.1f, ours %.1f: ratio %.2f; whole request: ratio %.2f\n", rival, theirs-base, mine-base, (mine-base)/(theirs-base), mine/theirs)
	return b.String()
}
