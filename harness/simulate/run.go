package simulate

import (
	"math/rand"
	"time"

	"github.com/resilient-gateway/resilience/harness/window"
	"github.com/resilient-gateway/resilience/ratelimit"
)

// limit of the simulated client: tokens, and tokens a second.
type limit struct{ Capacity, Rate int64 }

// outcome is the result of a run.
type outcome struct {
	Client   string  `json:"client"`
	Capacity int64   `json:"capacity"`
	Rate     int64   `json:"rate"`
	Gateways int     `json:"gateways"`
	Asked    int     `json:"asked"`
	Allowed  int     `json:"allowed"` // by one bucket that sees every request at once
	Admitted int     `json:"admitted"`
	Calls    int     `json:"calls"` // to Redis
	Late     float64 `json:"late"`  // admitted / allowed in the second half
	Most     float64 `json:"most"`  // tokens that any window saw beyond the rate: at most the capacity
}

// unused is the part of what is allowed that was not admitted.
func (o outcome) unused() float64 { return 1 - float64(o.Admitted)/float64(o.Allowed) }

// callsPerRequest is how many calls to Redis a request costs.
func (o outcome) callsPerRequest() float64 { return float64(o.Calls) / float64(o.Asked) }

// run lets a client ask a fleet for some time. It runs in a bubble of package synctest, whose time is virtual.
func run(c client, l limit, gateways int, length time.Duration, seed int64) outcome {
	f := newFleet(gateways, ratelimit.NewLimit(l.Capacity, l.Rate, time.Second), seed)
	random := rand.New(rand.NewSource(seed + 1))
	o := outcome{Client: c.Name, Capacity: l.Capacity, Rate: l.Rate, Gateways: gateways}
	allowed := &ideal{capacity: float64(l.Capacity), level: float64(l.Capacity), rate: float64(l.Rate)}
	begun := time.Now()
	allowedLate := 0
	die := f.life(c, random)
	for at := time.Duration(0); at < length; at = time.Since(begun) {
		times := c.asks(at)
		if times == 0 {
			time.Sleep(time.Millisecond)
			continue
		}
		pause := float64(time.Second) / times / float64(l.Rate)
		if !c.even {
			pause *= random.ExpFloat64()
		}
		time.Sleep(time.Duration(pause))
		at = time.Since(begun)
		for c.lives > 0 && at > die {
			f.restart(f.gateways[random.Intn(gateways)])
			die += f.life(c, random)
		}
		o.Asked++
		if allowed.take(at) {
			o.Allowed++
			if at > length/2 {
				allowedLate++
			}
		}
		f.ask(f.gateways[c.picks(random, gateways, at)], "client")
	}
	f.stop()
	o.Calls = f.redis.calls
	var spans []window.Span
	for _, g := range f.gateways {
		spans = append(spans, g.admitted...)
	}
	o.Admitted = len(spans)
	admittedLate := 0
	for _, s := range spans {
		if s.Start > (length / 2).Microseconds() {
			admittedLate++
		}
	}
	o.Late = float64(admittedLate) / float64(allowedLate)
	o.Most = window.Most(spans, l.Rate, time.Second)
	return o
}

// life is the time until the next gateway of the fleet dies.
func (f *fleet) life(c client, random *rand.Rand) time.Duration {
	return time.Duration(random.ExpFloat64() * float64(c.lives) / float64(len(f.gateways)))
}
