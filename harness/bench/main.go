// Command bench measures the plugin against Traefik's own rate limiter and circuit breaker, side by side in one Traefik.
//
// One workload of one case, for instance to measure a change, from the folder harness:
//
//	go run ./bench -case default -only a -rounds 3 -time 2s
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// bench is one run.
type bench struct {
	root           string
	rounds         int
	seconds        int // length of a sample
	short          bool
	contenders     []contender
	configurations []configuration
	workloads      []workload
	json           string
	report         report
}

func main() {
	if err := command(os.Args[1:], os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are those of the command line.
type options struct {
	cases, only, gogc, delays string
	root, json, plot, from    string
	rounds                    int
	length                    time.Duration
	short                     bool
}

func parse(arguments []string, usage io.Writer) (o options, err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(usage)
	flags.StringVar(&o.cases, "case", "", "`names` of cases, separated by commas: "+strings.Join(caseNames(), ", ")+" (default all)")
	flags.StringVar(&o.only, "only", "", "`names` of workloads, separated by commas: "+strings.Join(workloadNames(), ", ")+" (default all)")
	flags.IntVar(&o.rounds, "rounds", 7, "number of rounds; each measures every contender once")
	flags.DurationVar(&o.length, "time", 2*time.Second, "length of a sample in whole seconds; the contenders take turns each second")
	flags.StringVar(&o.gogc, "gogc", "", "`values` of GOGC in place of each case's own, separated by commas")
	flags.StringVar(&o.delays, "redis-delay", "", "`durations` added to each round trip to Redis, separated by commas")
	flags.BoolVar(&o.short, "short", false, "measure workloads a and d of the main case in three rounds, and fail where a loose bound is not met")
	flags.StringVar(&o.json, "json", "", "write all samples to this `file`")
	flags.StringVar(&o.plot, "svg", "", "write a plot of the first case to this `file`")
	flags.StringVar(&o.from, "from", "", "measure nothing, and read the samples for the plot from this `file`")
	flags.StringVar(&o.root, "root", "..", "root `folder` of the project")
	if err := flags.Parse(arguments); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q; see -help", flags.Arg(0))
	}
	return o, nil
}

// newBench makes a run from options.
func newBench(o options) (b *bench, err error) {
	b = &bench{
		root: o.root, rounds: o.rounds, seconds: int(o.length / slice), json: o.json, short: o.short,
		contenders: []contender{none, noop, builtin, builtinOpen, ours},
	}
	if o.short {
		if o.cases != "" || o.only != "" || o.gogc != "" || o.delays != "" {
			return nil, errors.New("-short has its own case and workloads: omit -case, -only, -gogc and -redis-delay")
		}
		b.rounds = 3
		b.contenders = []contender{none, builtin, ours}
		o.cases, o.only = configurations[0].Name, "a,d"
	}
	switch {
	case o.length < slice || o.length%slice != 0:
		return nil, fmt.Errorf("-time: %s is not a number of whole seconds; use one such as 2s", o.length)
	case b.rounds < 1:
		return nil, fmt.Errorf("-rounds: %d is too few; use 1 or more", o.rounds)
	}
	if b.configurations, err = chooseConfigurations(o.cases, o.gogc, o.delays); err != nil {
		return nil, err
	}
	b.workloads, err = chooseWorkloads(o.only)
	return b, err
}

func command(arguments []string, usage io.Writer) error {
	o, err := parse(arguments, usage)
	if err != nil {
		return err
	}
	b, err := newBench(o)
	if err != nil {
		return err
	}
	if o.from != "" {
		err = b.report.read(o.from)
	} else {
		err = b.run()
	}
	if o.plot == "" || len(b.report.Cases) == 0 {
		return err
	}
	drawn := b.report.Cases[0]
	if o.from != "" && o.cases != "" {
		if drawn = b.report.find(b.configurations[0].Name); drawn == nil {
			return fmt.Errorf("%s: there is no case %s", o.from, b.configurations[0].Name)
		}
	}
	if len(drawn.Results) == 0 {
		return err
	}
	return errors.Join(err, drawCase(drawn, o.plot))
}

// run measures each workload in each configuration, and writes all samples after each.
func (b *bench) run() error {
	var err error
	b.report.Configurations = describe(b.configurations)
	b.report.Date = time.Now().UTC().Truncate(time.Second)
	if b.report.Conditions, err = observe(b.root, b.rounds, time.Duration(b.seconds)*slice); err != nil {
		return err
	}
	fmt.Println("Cases:")
	for _, line := range b.report.Configurations {
		fmt.Println("  " + line)
	}
	var failed error
	for _, c := range b.configurations {
		fmt.Printf("\n== %s: %s\n", c.Name, c)
		one := &oneCase{Configuration: c}
		b.report.Cases = append(b.report.Cases, one)
		for _, w := range b.workloads {
			r, err := b.measureAndCheck(w, c)
			if err != nil {
				return errors.Join(failed, fmt.Errorf("%s, %s: %w", c.Name, w.Name, err))
			}
			failed = errors.Join(failed, r.failures())
			one.Results = append(one.Results, r)
			if err := b.report.write(b.json); err != nil {
				return err
			}
		}
	}
	fmt.Print(b.report.summary())
	return failed
}

// measureAndCheck measures a workload and compares it with its bounds. Where the short form fails by ratios only, it measures once more:
// three short rounds are few, and other work on the machine may have been the cause.
func (b *bench) measureAndCheck(w workload, c configuration) (*result, error) {
	for attempt := 1; ; attempt++ {
		r, err := b.workload(w, c)
		if err != nil {
			return nil, err
		}
		r.Bounds = checkBounds(r, c, b.short)
		fmt.Print(r.table())
		if !b.short || attempt == 2 || !r.worthRepeating() {
			return r, nil
		}
		fmt.Println("  a ratio is not met; measuring once more")
	}
}

// workload measures the contenders in turns, round after round, each in another order: the speed of a machine drifts.
func (b *bench) workload(w workload, c configuration) (*result, error) {
	t, err := newTestbed(b.root, c, w)
	if err != nil {
		return nil, err
	}
	defer t.close()
	if b.report.Conditions.Redis, err = t.redisVersion(); err != nil {
		return nil, err
	}
	time.Sleep(time.Second)
	r := &result{Workload: w, Samples: map[contender][]sample{}}
	for _, c := range b.contenders {
		if c != builtin && c != builtinOpen || c == w.baseline() {
			r.order = append(r.order, c)
		}
	}
	for round := range b.rounds {
		if err := b.round(t, r, round); err != nil {
			return nil, err
		}
	}
	r.summarize()
	return r, nil
}

// round takes one sample of each contender, slice by slice in turns.
func (b *bench) round(t *testbed, r *result, round int) error {
	if err := t.emptyRedis(r.Workload); err != nil {
		return err
	}
	slices := map[contender][]sample{}
	for i := range b.seconds {
		for place := range r.order {
			c := r.order[inTurn(round*b.seconds+i, place, len(r.order))]
			if i == 0 {
				if err := t.prepare(r.Workload, c, round); err != nil {
					return fmt.Errorf("%s: %w", c, err)
				}
			}
			s, err := t.measure(r.Workload, c, round*b.seconds+i)
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

// inTurn returns the index of the contender at a place of a round. Each round starts one contender later than the one before, and
// every second one runs backwards.
func inTurn(round, place, of int) int {
	if round%2 == 1 {
		place = of - 1 - place
	}
	return (round + place) % of
}
