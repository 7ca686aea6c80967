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
	Seed      uint64
	Length    time.Duration
	Answers   map[string]int // by kind and status
	Slowest   time.Duration
	Faults    map[string]int // survived, by name
	Upstreams int            // failures of the upstream that opened the circuit or kept it open
	Returns   time.Duration  // the longest that a gateway took to be back after the end of a fault
	Before    []string       // figures of each gateway after its start, and at the end
	After     []string
	Wrong     []string
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
	fmt.Fprintf(&b, "upstream failed %d times\n", r.Upstreams)
	fmt.Fprintf(&b, "back            after %s at the most\n", r.Returns.Round(time.Millisecond))
	for i := range r.Before {
		fmt.Fprintf(&b, "gateway %d       first %s; last %s\n", i, r.Before[i], r.After[i])
	}
	fmt.Fprintf(&b, "wrong answers   %d\n", len(r.Wrong))
	for _, line := range r.Wrong {
		fmt.Fprintf(&b, "  %s\n", line)
	}
	return b.String()
}

// Run runs a fleet for so long, lets go wrong what can, and judges what happened.
func Run(t testing.TB, o Options) *Report {
	t.Helper()
	f := startFleet(t, o.Root, o.Gateways, o.Seed)
	r := &Report{Seed: o.Seed, Length: o.Length, Faults: map[string]int{}, Answers: map[string]int{}}
	stop := make(chan struct{})
	var clients, others sync.WaitGroup
	for c := range o.Clients {
		clients.Go(func() { f.ask(rand.New(rand.NewPCG(o.Seed, uint64(c)+10)), stop) })
	}
	others.Go(func() { f.failUpstream(rand.New(rand.NewPCG(o.Seed, 1)), stop) })

	time.Sleep(2 * time.Second)
	for _, m := range f.members {
		r.Before = append(r.Before, m.figures().String())
	}
	d := &driver{fleet: f, random: rand.New(rand.NewPCG(o.Seed, 2)), report: r}
	for f.h.now() < o.Length {
		time.Sleep(o.Gap/2 + time.Duration(d.random.Int64N(int64(o.Gap))))
		d.once()
		if o.Progress != nil {
			o.Progress(d.last)
		}
	}
	time.Sleep(2 * time.Second)
	close(stop)
	clients.Wait()
	others.Wait()
	for _, m := range f.members {
		r.After = append(r.After, m.figures().String())
		if n := m.wire.Seen().Reused; n > 0 {
			r.Wrong = append(r.Wrong, fmt.Sprintf("gateway %d used a connection that had failed %d times again", m.number, n))
		}
		if m.panics > 0 {
			r.Wrong = append(r.Wrong, fmt.Sprintf("gateway %d: %d panics", m.number, m.panics))
		}
	}
	f.count(r)
	r.Wrong = append(r.Wrong, f.h.judge()...)
	return r
}

// count sums the history up.
func (f *fleet) count(r *Report) {
	for _, a := range f.h.answers {
		r.Answers[fmt.Sprint(a.kind, " ", a.status)]++
		if a.status != 0 {
			r.Slowest = max(r.Slowest, a.took)
		}
	}
	for _, p := range f.h.passages {
		if p.kind == circuit && p.status == http.StatusInternalServerError {
			r.Upstreams++
		}
	}
}

// failUpstream has the upstream fail now and then.
func (f *fleet) failUpstream(random *rand.Rand, stop chan struct{}) {
	pause := func(from, to time.Duration) bool {
		select {
		case <-stop:
			return false
		case <-time.After(from + time.Duration(random.Int64N(int64(to-from)))):
			return true
		}
	}
	for pause(3*time.Second, 6*time.Second) {
		f.origin.fail(true)
		if !pause(200*time.Millisecond, 2*time.Second) {
			return
		}
		f.origin.fail(false)
	}
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
	header := http.Header{"X-Gateway": {fmt.Sprint(a.gateway)}, "X-Key": {fmt.Sprint("key", random.IntN(3))}}
	patience := 30 * time.Second
	hasty := false
	switch random.IntN(10) {
	case 0, 1, 2:
		a.kind = plenty
		header.Set("X-Key", "key")
	case 3, 4, 5, 6:
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
