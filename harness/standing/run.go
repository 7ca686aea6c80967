// Package standing lets real gateways with standing leases decide while they are killed and started, and holds what they admitted against
// each limit.
package standing

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// limit is what a client may use at the route of its name. A gateway that joins uses its standing tokens within a few tenths of a second.
type limit struct{ capacity, rate int64 }

func (l limit) name() string { return fmt.Sprint("c", l.capacity) }

var limits = []limit{{101, 20}, {1000, 20}, {10_000, 50}, {100_000, 100}}

const (
	paused  = 60 * time.Millisecond // for which Redis is stopped when new clients come
	life    = 8 * time.Second       // of a client
	workers = 4                     // of a client, which ask at once
	pace    = 8 * time.Millisecond  // of each worker, after its first requests
	quick   = 100                   // requests of each worker without a pause: they take what is left, quicker than it is refilled
	steady  = -1                    // the number of a client that asks in each round
	seldom  = 40 * time.Millisecond // between the requests of a client that does not reach its limit
)

// Options of a run.
type Options struct {
	Root     string // of the project
	Seed     uint64 // of what is left to chance
	Gateways int
	Length   time.Duration
	Gap      time.Duration // between one kill and the next, about
}

// Run lets gateways be killed and started, and judges what they admitted.
//
// In each round Redis is stopped, and a new client of each limit asks all gateways at once: what passes now has used a standing token. In every
// second round a gateway is killed: either at once, before it can report these uses, or when Redis answers again. Another one is started. The
// new clients then ask for more than their limits allow. One client of each limit does so in each round, through all kills.
func Run(t testing.TB, o Options) *Report {
	t.Helper()
	f := startFleet(t, o)
	random := rand.New(rand.NewPCG(o.Seed, 1))
	var clients sync.WaitGroup
	end := f.history.now() + o.Length
	for round := 0; f.history.now() < end; round++ {
		started := f.history.now()
		f.round(round, random, &clients, end)
		time.Sleep(started + o.Gap/4 + time.Duration(random.Int64N(int64(o.Gap/2))) - f.history.now())
	}
	clients.Wait()
	f.starting.Wait()
	return f.history.judge(o, f.kills)
}

// round is one of Run.
func (f *fleet) round(number int, random *rand.Rand, clients *sync.WaitGroup, end time.Duration) {
	live := f.live()
	kill := -1
	if number%2 == 1 && len(live) > f.options.Gateways/2 {
		kill = random.IntN(len(live))
	}
	early := random.IntN(2) == 0
	f.redis.Pause()
	time.Sleep(5 * time.Millisecond) // it stops
	from := f.history.now()
	var asked sync.WaitGroup
	for _, l := range limits {
		for _, g := range live {
			asked.Go(func() { f.ask(g, l, key(l, number), 1) })
			asked.Go(func() { f.ask(g, l, key(l, steady), 1) })
		}
	}
	time.Sleep(paused)
	if kill >= 0 && early {
		f.kill(live[kill])
	}
	f.history.pause(from)
	f.redis.Resume()
	if kill >= 0 && !early {
		asked.Wait()
		f.kill(live[kill])
	}
	if kill >= 0 {
		f.starting.Go(f.start)
	}
	for _, l := range limits {
		random := rand.New(rand.NewPCG(random.Uint64(), uint64(l.capacity)))
		again := rand.New(rand.NewPCG(random.Uint64(), 2))
		clients.Go(func() { f.use(l, key(l, number), random, min(end, f.history.now()+life)) })
		clients.Go(func() {
			if number == 0 {
				f.spend(l, key(l, steady), again)
			}
			f.askAll(l, key(l, steady), again, quick, min(end, f.history.now()+f.options.Gap/4))
		})
	}
	asked.Wait()
}

func key(l limit, round int) string { return fmt.Sprint(l.name(), "-", round) }

// use is the life of a client: it asks seldom while its bucket is full, spends most of that by expensive requests, and then asks for all that is
// left, with pauses in which a small bucket becomes full.
func (f *fleet) use(l limit, key string, random *rand.Rand, end time.Duration) {
	for range random.IntN(10) {
		f.ask(f.any(random), l, key, 1)
		time.Sleep(seldom)
	}
	f.spend(l, key, random)
	for burst := quick; f.history.now() < end; burst = 0 {
		f.askAll(l, key, random, burst, min(end, f.history.now()+time.Second+time.Duration(random.Int64N(int64(2*time.Second)))))
		time.Sleep(min(end-f.history.now(), time.Duration(random.Int64N(int64(6*time.Second)))))
	}
}

// spend spends all but a little of a client's bucket.
func (f *fleet) spend(l limit, key string, random *rand.Rand) {
	for cost := l.capacity / 2; cost >= 64; {
		if f.ask(f.any(random), l, key, cost) != http.StatusOK {
			cost /= 2
		}
	}
}

// askAll asks for more than a client may have, until a time, first without a pause.
func (f *fleet) askAll(l limit, key string, random *rand.Rand, burst int, until time.Duration) {
	var asking sync.WaitGroup
	for range workers {
		random := rand.New(rand.NewPCG(random.Uint64(), 1))
		asking.Go(func() {
			for n := 0; f.history.now() < until; n++ {
				f.ask(f.any(random), l, key, 1)
				if n >= burst {
					time.Sleep(pace)
				}
			}
		})
	}
	asking.Wait()
}

// fleet is the gateways, their Redis and their service.
type fleet struct {
	t        testing.TB
	options  Options
	redis    *redistest.Server
	service  string
	folder   string // of the dynamic files
	history  history
	kills    int
	starting sync.WaitGroup

	mu       sync.Mutex // guards gateways
	gateways []*member
}

func (f *fleet) live() []*member {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]*member{}, f.gateways...)
}

// any returns one of the gateways.
func (f *fleet) any(random *rand.Rand) *member {
	live := f.live()
	return live[random.IntN(len(live))]
}

// ask sends a request of a client, and returns the status; 0: there was no answer.
func (f *fleet) ask(g *member, l limit, key string, cost int64) int {
	status := f.send(g, l, key, cost)
	f.history.status(status)
	return status
}

func (f *fleet) send(g *member, l limit, key string, cost int64) int {
	path := "/" + l.name()
	if cost > 1 {
		path += "/spend"
	}
	request, err := http.NewRequest(http.MethodGet, "http://"+g.web+path, nil)
	require.NoError(f.t, err)
	request.Header.Set("X-Key", key)
	request.Header.Set("X-Cost", fmt.Sprint(cost))
	request.Header.Set("X-Sent", fmt.Sprint(int64(f.history.now())))
	response, err := g.client.Do(request)
	if err != nil {
		return 0
	}
	response.Body.Close()
	return response.StatusCode
}
