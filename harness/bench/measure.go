package main

import (
	"fmt"
	"math"
	"net/http"
	"time"
)

// sample is what one contender used in one round. Figures per request are per request that wrk saw answered.
type sample struct {
	Round      int     `json:"round"`
	Requests   int     `json:"requests"`
	Refused    int     `json:"refused"`
	Upstream   int     `json:"upstream"` // requests that reached it
	Clients    int     `json:"clients"`  // distinct ones that sent requests
	Keys       int     `json:"keys"`     // created in Redis; since the first round where Redis keeps its state
	PerSecond  float64 `json:"perSecond"`
	TraefikCPU float64 `json:"traefikCPU"` // microseconds a request
	RedisCPU   float64 `json:"redisCPU"`   // microseconds a request
	RedisCalls float64 `json:"redisCalls"` // a request
	Objects    float64 `json:"objects"`    // allocated in Traefik, a request; 0 without metrics
	Bytes      float64 `json:"bytes"`
	P50        float64 `json:"p50"` // microseconds
	P99        float64 `json:"p99"`
}

// cpu returns the CPU of a request, Traefik and Redis together.
func (s sample) cpu() float64 { return s.TraefikCPU + s.RedisCPU }

// slice is how long a contender is measured before the next has its turn. A sample consists of several. Other work on the machine starts
// and stops within seconds, so short turns let it disturb all contenders of a round alike.
const slice = time.Second

// measure sends a contender the workload for one slice and checks that the sample is valid. Each seed gives another sequence of clients.
func (t *testbed) measure(w workload, c contender, seed int) (sample, error) {
	before, err := t.readCounters(true)
	if err != nil {
		return sample{}, err
	}
	loads, err := t.load(w, c, slice, seed)
	if err != nil {
		return sample{}, err
	}
	after, err := t.readCounters(false)
	if err != nil {
		return sample{}, err
	}
	t.keysCreated[c] += after.keys - before.keys
	s := sample{Upstream: after.upstream - before.upstream, Keys: t.keysCreated[c]}
	for _, one := range loads {
		if one.Broken > 0 {
			return s, fmt.Errorf("%d requests without an answer", one.Broken)
		}
		s.Requests += one.Requests
		s.Refused += one.Refused
		s.Clients = max(s.Clients, one.Distinct)
		s.PerSecond += float64(one.Requests) / one.Micros * 1e6
		s.P50 = max(s.P50, one.P50)
		s.P99 = max(s.P99, one.P99)
		if expected := w.clients.expected(one.Requests); math.Abs(float64(one.Distinct)-expected) > expected/10+1 {
			return s, fmt.Errorf("%d distinct clients; expected about %.0f", one.Distinct, expected)
		}
	}
	n := float64(s.Requests)
	s.TraefikCPU = (after.traefik - before.traefik) / n
	s.RedisCPU = (after.redis - before.redis) / n
	s.RedisCalls = (after.calls - before.calls) / n
	s.Objects = (after.objects - before.objects) / n
	s.Bytes = (after.bytes - before.bytes) / n
	if err := w.check(c, s, slice); err != nil {
		return s, err
	}
	return s, t.verifyAnswer(w, c)
}

// verifyAnswer sends one request to each gateway and checks its status: wrk counts refusals, but not by status.
func (t *testbed) verifyAnswer(w workload, c contender) error {
	for _, web := range t.webAddresses {
		request, err := http.NewRequest(http.MethodGet, "http://"+web[c]+"/ok", nil)
		if err != nil {
			return err
		}
		request.Header.Set("X-Client", "hot")
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		response.Body.Close()
		if !w.allowsStatus(c, response.StatusCode) {
			return fmt.Errorf("unexpected status %d", response.StatusCode)
		}
	}
	return nil
}

// allowsStatus reports whether a contender may answer with the status.
func (w workload) allowsStatus(c contender, status int) bool {
	switch {
	case status == http.StatusOK:
		return !w.open || !c.mayRefuse()
	case status == http.StatusTooManyRequests:
		return !w.open && w.refused > 0 && c.mayRefuse()
	case status == http.StatusServiceUnavailable:
		return w.open && c.mayRefuse()
	}
	return false
}

// join combines slices into one sample. Figures per request are weighted by requests; latencies and rates are averaged.
func join(slices []sample) sample {
	var all sample
	for _, s := range slices {
		all.Requests += s.Requests
		all.Refused += s.Refused
		all.Upstream += s.Upstream
		all.Clients = max(all.Clients, s.Clients)
		all.Keys = max(all.Keys, s.Keys)
	}
	for _, s := range slices {
		weight := float64(s.Requests) / float64(all.Requests)
		all.TraefikCPU += s.TraefikCPU * weight
		all.RedisCPU += s.RedisCPU * weight
		all.RedisCalls += s.RedisCalls * weight
		all.Objects += s.Objects * weight
		all.Bytes += s.Bytes * weight
		all.PerSecond += s.PerSecond / float64(len(slices))
		all.P50 += s.P50 / float64(len(slices))
		all.P99 += s.P99 / float64(len(slices))
	}
	return all
}

// emptyRedis deletes all keys but those of the gateways' registry, unless the workload keeps its state from one round to the next. A gateway
// that loses its registration has no standing leases for a while, and it seldom does in the life of a fleet.
func (t *testbed) emptyRedis(w workload) error {
	if w.keepsState {
		return nil
	}
	clear(t.keysCreated)
	_, err := t.do("EVAL", emptyBuckets, 0)
	return err
}

const emptyBuckets = `local kept = {}
for _, pattern in ipairs({'*:gateways', '*:gateways:count'}) do
	for _, key in ipairs(redis.call('KEYS', pattern)) do
		kept[key] = {redis.call('PTTL', key), redis.call('DUMP', key)}
	end
end
redis.call('FLUSHALL')
for key, of in pairs(kept) do
	redis.call('RESTORE', key, math.max(of[1], 0), of[2])
end`

// awaitStandingLeases sends a few requests until the gateways may have standing leases: they wait until a token for each is refilled.
func (t *testbed) awaitStandingLeases(w workload, c contender) error {
	period, err := time.ParseDuration(w.Period)
	if err != nil {
		return err
	}
	wait := 11 * period * time.Duration(w.Gateways) / time.Duration(w.Rate) / 10
	if wait < time.Second {
		return nil // the warm-up is longer
	}
	for end := time.Now().Add(wait + 10*time.Second); time.Now().Before(end); time.Sleep(time.Second) {
		if err := t.verifyAnswer(w, c); err != nil {
			return err
		}
	}
	return nil
}

// prepare opens the circuit if the workload needs it open, and warms up.
func (t *testbed) prepare(w workload, c contender, round int) error {
	start, err := t.readCounters(true)
	if err != nil {
		return err
	}
	if w.open {
		for range 50 {
			for _, web := range t.webAddresses {
				response, err := http.Get("http://" + web[c] + "/fail")
				if err != nil {
					return err
				}
				response.Body.Close()
			}
		}
		time.Sleep(300 * time.Millisecond)
	}
	if c == ours && round == 0 {
		if err := t.awaitStandingLeases(w, c); err != nil {
			return err
		}
	}
	if _, err := t.load(w, c, w.warmUp(c, round), round+1000); err != nil {
		return err
	}
	end, err := t.readCounters(false)
	t.keysCreated[c] += end.keys - start.keys
	return err
}

// check returns an error if the sample cannot be one of its workload.
func (w workload) check(c contender, s sample, duration time.Duration) error {
	passed := s.Requests - s.Refused
	share := float64(s.Refused) / float64(s.Requests)
	period, err := time.ParseDuration(w.Period)
	if err != nil {
		return err
	}
	// At its end, wrk abandons one request in flight on each connection, and the upstream may count it. The warm-up does the same.
	abandoned := 2 * w.Connections
	refilled := float64(w.Rate) * (duration + 500*time.Millisecond).Seconds() / period.Seconds()
	limits := c == builtin || c == ours && !w.open
	switch {
	case s.Requests < 500:
		return fmt.Errorf("only %d requests", s.Requests)
	case s.Upstream < passed || s.Upstream > passed+abandoned:
		return fmt.Errorf("%d requests reached the upstream, but %d passed", s.Upstream, passed)
	case !c.mayRefuse() && s.Refused != 0:
		return fmt.Errorf("%d refused on a route without a limiter", s.Refused)
	case !c.mayRefuse() && s.RedisCalls > 0.001: // the previous contender may send one late
		return fmt.Errorf("%.2f Redis calls a request on a route without a limiter", s.RedisCalls)
	case c.mayRefuse() && w.refused == 0 && s.Refused != 0:
		return fmt.Errorf("%d refused below the limit", s.Refused)
	case c.mayRefuse() && share < w.refused:
		return fmt.Errorf("only %.3f of the requests refused", share)
	case limits && w.clients.count == 1 && float64(s.Upstream) > float64(w.Capacity)+refilled:
		return fmt.Errorf("%d passed, which is over the limit", s.Upstream)
	case limits && s.Keys < s.Clients:
		return fmt.Errorf("%d keys in Redis for %d clients", s.Keys, s.Clients)
	case c == builtin && w.refused == 0 && s.RedisCalls < 0.9:
		return fmt.Errorf("%.2f Redis calls a request: the built-in limiter does not use Redis", s.RedisCalls)
	case c == ours && limits && w.refused == 0 && s.RedisCalls == 0:
		return fmt.Errorf("the plugin never calls Redis")
	}
	return nil
}
