package truth

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Options of a run.
type Options struct {
	Root     string // of the project
	Seed     uint64 // of everything that is left to chance
	Gateways int
	Clients  int
	Length   time.Duration
	Gap      time.Duration // between one fault and the next, about
	Progress func(text string)
}

// Report is what came of a run.
type Report struct {
	Seed    uint64
	Length  time.Duration
	Answers map[string]int // by kind and status
	Slowest time.Duration
	Faults  map[string]int // survived, by name
	Judged  map[string]int // what there was to judge
	Spare   string         // tokens that the promise left
	Returns time.Duration  // the longest that a gateway took to be back after the end of a fault
	before  []figures      // of each gateway after its start, and at the end
	after   []figures
	Wrong   []string
}

// String returns the report as a text.
func (r *Report) String() string {
	var b strings.Builder
	requests, faults := 0, 0
	for _, n := range r.Answers {
		requests += n
	}
	for _, n := range r.Faults {
		faults += n
	}
	fmt.Fprintf(&b, "seed            %d\n", r.Seed)
	fmt.Fprintf(&b, "length          %s\n", r.Length.Round(time.Second))
	fmt.Fprintf(&b, "requests        %d: %v\n", requests, r.Answers)
	fmt.Fprintf(&b, "slowest         %s\n", r.Slowest.Round(time.Millisecond))
	fmt.Fprintf(&b, "faults survived %d: %v\n", faults, r.Faults)
	fmt.Fprintf(&b, "judged          %v\n", r.Judged)
	fmt.Fprintf(&b, "tokens to spare %s\n", r.Spare)
	fmt.Fprintf(&b, "back            after %s at the most\n", r.Returns.Round(time.Millisecond))
	for i := range r.before {
		fmt.Fprintf(&b, "gateway %d       first %s; last %s\n", i, r.before[i], r.after[i])
	}
	fmt.Fprintf(&b, "wrong answers   %d\n", len(r.Wrong))
	for _, line := range r.Wrong {
		fmt.Fprintf(&b, "  %s\n", line)
	}
	return b.String()
}

// Run runs a fleet for the length in the options, injects faults, and judges what happened.
func Run(t testing.TB, o Options) *Report {
	t.Helper()
	f := startFleet(t, o.Root, o.Gateways)
	r := &Report{Seed: o.Seed, Length: o.Length, Faults: map[string]int{}, Answers: map[string]int{}}
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for c := range o.Clients {
		clients.Go(func() { f.ask(rand.New(rand.NewPCG(o.Seed, uint64(c)+10)), stop) })
	}

	time.Sleep(2 * time.Second)
	for _, m := range f.members {
		r.before = append(r.before, m.figures())
	}
	d := &driver{fleet: f, random: rand.New(rand.NewPCG(o.Seed, 2)), report: r}
	for i := 0; f.h.now() < o.Length; i++ {
		time.Sleep(o.Gap/2 + time.Duration(d.random.Int64N(int64(o.Gap))))
		if i%3 == 1 {
			d.open()
		}
		d.once()
		if o.Progress != nil {
			o.Progress(d.last)
		}
	}
	time.Sleep(2 * time.Second)
	close(stop)
	clients.Wait()
	for _, m := range f.members {
		r.after = append(r.after, m.figures())
		if last := r.after[m.number]; last.grown(r.before[m.number]) {
			r.Wrong = append(r.Wrong, fmt.Sprintf("gateway %d has grown to %s", m.number, last))
		}
		if n := m.wire.Seen().Reused; n > 0 {
			r.Wrong = append(r.Wrong, fmt.Sprintf("gateway %d used a connection that had failed %d times again", m.number, n))
		}
		if m.panics > 0 {
			r.Wrong = append(r.Wrong, fmt.Sprintf("gateway %d: %d panics", m.number, m.panics))
		}
	}
	f.count(r)
	r.Wrong = append(r.Wrong, f.h.judge()...)
	r.Judged = f.h.judged
	r.Spare = fmt.Sprintf("%s %.1f, %s %.1f", scarce, f.h.spare[scarce], plenty, f.h.spare[plenty])
	return r
}

// count sums the history up.
func (f *fleet) count(r *Report) {
	for _, a := range f.h.answers {
		r.Answers[fmt.Sprint(a.kind, " ", a.status)]++
		if a.status != 0 && a.kind != plain && !f.h.dead(a) {
			r.Slowest = max(r.Slowest, a.took)
		}
	}
}

// some returns the numbers of all gateways, or of one.
func (f *fleet) some(random *rand.Rand) []int {
	var all []int
	for _, m := range f.members {
		all = append(all, m.number)
	}
	if i := random.IntN(2 * len(all)); i < len(all) {
		return all[i : i+1]
	}
	return all
}

// ask is one client: one request after the other, of every kind, to every gateway.
func (f *fleet) ask(random *rand.Rand, stop chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(5+random.IntN(30)) * time.Millisecond):
		}
		f.askOnce(random)
	}
}

var client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}}

func (f *fleet) askOnce(random *rand.Rand) {
	a := answer{kind: scarce, gateway: random.IntN(len(f.members))}
	header := http.Header{"X-Gateway": {fmt.Sprint(a.gateway)}, "X-Key": {"key"}}
	patience := 30 * time.Second
	hasty := false
	switch random.IntN(10) {
	case 9:
		a.kind = plain
	case 0, 1, 5, 6:
		// By turns as much as there is, and nothing: leases are given only while there are tokens left.
		if f.h.now()/(6*time.Second)%2 == 0 {
			a.kind = plenty
		}
	case 2, 3, 4:
		a.kind = circuit
		wait := time.Duration(random.IntN(int(longest/time.Millisecond)-50)) * time.Millisecond
		switch random.IntN(8) {
		case 0:
			header.Set("X-Missing", "yes")
		case 1:
			hasty = true
			patience, wait = 20*time.Millisecond, 100*time.Millisecond
		}
		header.Set("X-Wait", wait.String())
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+f.members[a.gateway].web+"/"+string(a.kind), nil)
	require.NoError(f.t, err)
	request.Header = header
	a.sent = f.h.now()
	response, err := client.Do(request)
	a.took = f.h.now() - a.sent
	if hasty && err != nil {
		return
	}
	if err == nil {
		defer response.Body.Close()
		a.status = response.StatusCode
		body := make([]byte, 100)
		n, _ := response.Body.Read(body)
		a.open = a.status == http.StatusServiceUnavailable && strings.Contains(string(body[:n]), "circuit open")
	}
	f.h.answer(a)
}
