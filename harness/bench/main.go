// Command bench measures the plugin against Traefik's own rate limiter and circuit breaker, side by side in one Traefik.
package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

func main() {
	c := conditions{}
	rounds := flag.Int("rounds", 7, "rounds; each measures every contender once")
	seconds := flag.Int("seconds", 3, "seconds a measurement")
	only := flag.String("workloads", "", "names of workloads, with commas; default: all")
	flag.StringVar(&c.gogc, "gogc", "400", "GOGC of the gateways")
	flag.BoolVar(&c.bare, "bare", false, "without metrics and access log")
	flag.StringVar(&c.root, "root", "..", "root of the project")
	flag.Parse()
	for _, w := range workloads {
		if *only != "" && !slices.Contains(strings.Split(*only, ","), w.name) {
			continue
		}
		r, err := run(w, c, *rounds, time.Duration(*seconds)*time.Second)
		if err != nil {
			fmt.Fprintf(os.Stderr, "bench: %s: %s\n", w.name, err)
			os.Exit(1)
		}
		fmt.Print(r.table())
	}
}

// run measures the contenders of a workload in turn, round after round.
func run(w workload, c conditions, rounds int, duration time.Duration) (*result, error) {
	c.count = w.gateways
	l, err := newLab(c)
	if err != nil {
		return nil, err
	}
	defer l.close()
	time.Sleep(time.Second)
	r := &result{Workload: w, Samples: map[contender][]sample{}}
	for round := range rounds {
		for _, contender := range w.contenders() {
			s, err := l.measure(w, contender, duration, round)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", contender, err)
			}
			r.Samples[contender] = append(r.Samples[contender], s)
		}
	}
	return r, nil
}

func (w workload) contenders() []contender {
	if w.open {
		return []contender{none, noop, builtinOpen, ours}
	}
	return []contender{none, noop, builtin, ours}
}
