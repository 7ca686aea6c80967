// Command bench measures the plugin against Traefik's own rate limiter and circuit breaker, side by side in one Traefik.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// bench is what a run does.
type bench struct {
	root       string
	rounds     int
	seconds    int // of a sample
	contenders []contender
	check      bool // that the loose bounds hold
	json       string
	report     report
}

func main() {
	b := &bench{contenders: []contender{none, noop, builtin, builtinOpen, ours}}
	flag.IntVar(&b.seconds, "seconds", 2, "seconds a sample, one of them at a time, in turns with the other contenders")
	names := flag.String("workloads", "", "names of workloads, with commas; default: all")
	gogc := flag.String("gogc", "400,100", "GOGC of the gateways, one case each, with commas")
	static := flag.String("static", "shipped,bare", "static configurations, one case each: shipped, bare (without metrics and access log)")
	delays := flag.String("redis-delay", "0s", "added to each round trip to Redis, one case each, with commas")
	short := flag.Bool("short", false, "workloads a and d only, in three rounds, and fail where a loose bound is passed")
	plot := flag.String("svg", "", "file for a plot of the first case")
	from := flag.String("from", "", "file with samples of before: measures nothing, and only draws the plot")
	flag.StringVar(&b.json, "json", "", "file for all samples")
	flag.StringVar(&b.root, "root", "..", "root of the project")
	flag.IntVar(&b.rounds, "rounds", 7, "rounds; each measures every contender once")
	flag.Parse()
	if *short {
		b.rounds, b.check = 3, true
		b.contenders = []contender{none, builtin, ours}
		*names, *gogc, *static = "a,d", "400", "shipped"
	}
	settings, err := settings(*static, *gogc, *delays)
	if err == nil {
		if *from != "" {
			err = b.report.read(*from)
		} else {
			err = b.run(settings, *names)
		}
	}
	if err == nil && *plot != "" {
		err = drawCase(b.report.Cases[0], *plot)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// settings multiplies the lists out. The first is the main case.
func settings(static, gogc, delays string) (all []setting, err error) {
	for _, s := range strings.Split(static, ",") {
		if s != "shipped" && s != "bare" {
			return nil, fmt.Errorf("-static %q: shipped or bare, not that", s)
		}
		for _, g := range strings.Split(gogc, ",") {
			n, err := strconv.Atoi(g)
			if err != nil {
				return nil, fmt.Errorf("-gogc: %w", err)
			}
			for _, d := range strings.Split(delays, ",") {
				added, err := time.ParseDuration(d)
				if err != nil {
					return nil, fmt.Errorf("-redis-delay: %w", err)
				}
				all = append(all, setting{GOGC: n, GOMEMLIMIT: "512MiB", Bare: s == "bare", RedisDelay: added.String()})
			}
		}
	}
	return all, nil
}

// run measures the named workloads under each setting, and writes the samples down after each.
func (b *bench) run(settings []setting, names string) error {
	var chosen []workload
	for _, w := range workloads {
		if names == "" || slices.Contains(strings.Split(names, ","), w.Name) {
			chosen = append(chosen, w)
		}
	}
	if len(chosen) == 0 {
		return fmt.Errorf("-workloads %q: there are none of these names", names)
	}
	var err error
	b.report.Date = time.Now().UTC().Truncate(time.Second)
	if b.report.Conditions, err = observe(b.root, b.rounds, time.Duration(b.seconds)*slice); err != nil {
		return err
	}
	var passed error
	for _, s := range settings {
		fmt.Printf("\n== %s, GOMEMLIMIT=%s\n", s, s.GOMEMLIMIT)
		c := &oneCase{Setting: s}
		b.report.Cases = append(b.report.Cases, c)
		for _, w := range chosen {
			r, err := b.workload(w, s)
			if err != nil {
				return fmt.Errorf("%s: %w", w.Name, err)
			}
			fmt.Print(r.table())
			if b.check {
				passed = errors.Join(passed, hold(r))
			}
			c.Results = append(c.Results, r)
			if err := b.report.write(b.json); err != nil {
				return err
			}
		}
	}
	return passed
}

// workload measures its contenders in turn, round after round, each round in another order: a machine drifts.
func (b *bench) workload(w workload, s setting) (*result, error) {
	l, err := newLab(b.root, s, w)
	if err != nil {
		return nil, err
	}
	defer l.close()
	if b.report.Conditions.Redis, err = l.redisVersion(); err != nil {
		return nil, err
	}
	time.Sleep(time.Second)
	r := &result{Workload: w, Samples: map[contender][]sample{}}
	for _, c := range b.contenders {
		if c != builtin && c != builtinOpen || c == w.rival() {
			r.order = append(r.order, c)
		}
	}
	for round := range b.rounds {
		if err := b.round(l, r, round); err != nil {
			return nil, err
		}
	}
	r.sum()
	return r, nil
}

// round takes one sample of each contender, slice by slice in turns.
func (b *bench) round(l *lab, r *result, round int) error {
	if err := l.empty(r.Workload); err != nil {
		return err
	}
	slices := map[contender][]sample{}
	for i := range b.seconds {
		for place := range r.order {
			c := r.order[turn(round*b.seconds+i, place, len(r.order))]
			if i == 0 {
				if err := l.prepare(r.Workload, c, round); err != nil {
					return fmt.Errorf("%s: %w", c, err)
				}
			}
			s, err := l.measure(r.Workload, c, round*b.seconds+i)
			if err != nil {
				return fmt.Errorf("%s: %w", c, err)
			}
			slices[c] = append(slices[c], s)
		}
	}
	for _, c := range r.order {
		s := join(slices[c])
		s.Round = round
		r.Samples[c] = append(r.Samples[c], s)
	}
	return nil
}

// turn tells who is next: each time begins one further on, and every other one goes backwards.
func turn(round, place, of int) int {
	if round%2 == 1 {
		place = of - 1 - place
	}
	return (round + place) % of
}
