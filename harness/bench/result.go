package main

import (
	"fmt"
	"slices"
	"strings"
)

// result is all rounds of one workload.
type result struct {
	Workload workload                         `json:"workload"`
	Samples  map[contender][]sample           `json:"samples"`
	Medians  map[contender]map[string]figures `json:"medians"`
	Ratios   map[string]figures               `json:"ratios"` // ours to the rival
	order    []contender
}

// figures are the median of some, the least and the most.
type figures struct {
	Median float64 `json:"median"`
	Least  float64 `json:"least"`
	Most   float64 `json:"most"`
}

func spread(values []float64) figures {
	values = slices.Sorted(slices.Values(values))
	n := len(values)
	return figures{(values[(n-1)/2] + values[n/2]) / 2, values[0], values[n-1]}
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

// sum works the medians and the ratios out. A ratio is that of the medians; its spread is that of the rounds.
func (r *result) sum() {
	r.Medians = map[contender]map[string]figures{}
	for _, c := range r.order {
		r.Medians[c] = map[string]figures{}
		for _, column := range columns {
			var values []float64
			for _, s := range r.Samples[c] {
				values = append(values, column.figure(s))
			}
			r.Medians[c][column.name] = spread(values)
		}
	}
	rival := r.Workload.rival()
	r.Ratios = map[string]figures{}
	for name, ratio := range map[string]func(figure func(contender, string) float64) float64{
		"added": func(of func(contender, string) float64) float64 {
			return (of(ours, "cpu") - of(none, "cpu")) / (of(rival, "cpu") - of(none, "cpu"))
		},
		"whole": func(of func(contender, string) float64) float64 { return of(ours, "cpu") / of(rival, "cpu") },
		"p99":   func(of func(contender, string) float64) float64 { return of(ours, "p99") / of(rival, "p99") },
		"perSecond": func(of func(contender, string) float64) float64 {
			return of(ours, "perSecond") / of(rival, "perSecond")
		},
	} {
		var rounds []float64
		for i := range r.Samples[ours] {
			rounds = append(rounds, ratio(func(c contender, name string) float64 { return r.value(c, name, i) }))
		}
		f := spread(rounds)
		f.Median = ratio(func(c contender, name string) float64 { return r.Medians[c][name].Median })
		r.Ratios[name] = f
	}
}

// value returns a figure of one round.
func (r *result) value(c contender, name string, round int) float64 {
	for _, column := range columns {
		if column.name == name {
			return column.figure(r.Samples[c][round])
		}
	}
	panic("there is no figure " + name)
}

func (r *result) table() string {
	var b strings.Builder
	w := r.Workload
	fmt.Fprintf(&b, "\n%s: %s; capacity %d, %d per %s; %d connections", w.Name, w.Title, w.Capacity, w.Rate, w.Period, w.Connections)
	if w.Gateways > 1 {
		fmt.Fprintf(&b, " to %d gateways", w.Gateways)
	}
	fmt.Fprintf(&b, "\n  %-17s %8s %15s %8s %7s %8s %8s %7s %8s %8s %8s\n",
		"", "CPU µs", "(least-most)", "Traefik", "Redis", "calls", "objects", "KB", "req/s", "p50 µs", "p99 µs")
	for _, c := range r.order {
		m := r.Medians[c]
		fmt.Fprintf(&b, "  %-17s %8.1f %7.1f-%7.1f %8.1f %7.1f %8.4f %8.0f %7.1f %8.0f %8.0f %8.0f\n", c,
			m["cpu"].Median, m["cpu"].Least, m["cpu"].Most, m["traefikCPU"].Median, m["redisCPU"].Median, m["redisCalls"].Median,
			m["objects"].Median, m["bytes"].Median/1024, m["perSecond"].Median, m["p50"].Median, m["p99"].Median)
	}
	base := r.Medians[none]["cpu"].Median
	fmt.Fprintf(&b, "  added: %s %.1f, ours %.1f\n  ours to %s: added %s; whole request %s; p99 %s; requests per second %s\n",
		w.rival(), r.Medians[w.rival()]["cpu"].Median-base, r.Medians[ours]["cpu"].Median-base, w.rival(),
		r.Ratios["added"], r.Ratios["whole"], r.Ratios["p99"], r.Ratios["perSecond"])
	return b.String()
}

func (f figures) String() string { return fmt.Sprintf("%.2f (%.2f-%.2f)", f.Median, f.Least, f.Most) }
