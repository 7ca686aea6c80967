package main

import (
	"fmt"
	"math"
	"net/http"
	"time"
)

// sample is one contender in one round. What is per request is so of those that wrk saw answered.
type sample struct {
	Round      int     `json:"round"`
	Requests   int     `json:"requests"`
	Refused    int     `json:"refused"`
	Upstream   int     `json:"upstream"` // requests that reached it
	Clients    int     `json:"clients"`  // that asked
	Keys       int     `json:"keys"`     // made in Redis, for them; of a lasting workload until now
	PerSecond  float64 `json:"perSecond"`
	TraefikCPU float64 `json:"traefikCPU"` // microseconds a request
	RedisCPU   float64 `json:"redisCPU"`   // microseconds a request
	RedisCalls float64 `json:"redisCalls"` // a request
	Objects    float64 `json:"objects"`    // allocated in Traefik a request; 0: not known
	Bytes      float64 `json:"bytes"`
	P50        float64 `json:"p50"` // microseconds
	P99        float64 `json:"p99"`
}

// cpu is what the sample's request costs in all.
func (s sample) cpu() float64 { return s.TraefikCPU + s.RedisCPU }

// slice is how long a contender answers before it is another's turn. A sample has as many as it has seconds: neighbours on a machine
// come and go within seconds, and so disturb all contenders of a round alike.
const slice = time.Second

// measure has a contender answer the workload for a slice of time, and checks that it measured what it says. Each seed is another
// sequence of clients.
func (l *lab) measure(w workload, c contender, seed int) (sample, error) {
	before, err := l.account(true)
	if err != nil {
		return sample{}, err
	}
	loads, err := l.load(w, c, slice, seed)
	if err != nil {
		return sample{}, err
	}
	after, err := l.account(false)
	if err != nil {
		return sample{}, err
	}
	l.made[c] += after.keys - before.keys
	s := sample{Upstream: after.upstream - before.upstream, Keys: l.made[c]}
	for _, one := range loads {
		if one.Broken > 0 {
			return s, fmt.Errorf("%d requests got no answer", one.Broken)
		}
		s.Requests += one.Requests
		s.Refused += one.Refused
		s.Clients = max(s.Clients, one.Distinct)
		s.PerSecond += float64(one.Requests) / one.Micros * 1e6
		s.P50 = max(s.P50, one.P50)
		s.P99 = max(s.P99, one.P99)
		if expected := w.clients.expected(one.Requests); math.Abs(float64(one.Distinct)-expected) > expected/10+1 {
			return s, fmt.Errorf("%d clients asked, not about %.0f", one.Distinct, expected)
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
	return s, l.ask(w, c)
}

// ask asks once, for wrk does not tell one refusal from another.
func (l *lab) ask(w workload, c contender) error {
	for _, web := range l.webs {
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
		if !w.answers(c, response.StatusCode) {
			return fmt.Errorf("the answer was %d", response.StatusCode)
		}
	}
	return nil
}

// answers tells whether a contender may answer so.
func (w workload) answers(c contender, status int) bool {
	switch {
	case status == http.StatusOK:
		return !w.open || !c.guards()
	case status == http.StatusTooManyRequests:
		return !w.open && w.refused > 0 && c.guards()
	case status == http.StatusServiceUnavailable:
		return w.open && c.guards()
	}
	return false
}

// join makes one sample of slices. What is per request is weighed by the requests; of latencies and rates it is the mean.
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

// empty empties Redis, unless it is to keep what it has.
func (l *lab) empty(w workload) error {
	if w.lasting {
		return nil
	}
	clear(l.made)
	_, err := l.do("FLUSHALL")
	return err
}

// prepare opens the circuit where it is to be open, and warms up.
func (l *lab) prepare(w workload, c contender, round int) error {
	start, err := l.account(true)
	if err != nil {
		return err
	}
	if w.open {
		for range 50 {
			for _, web := range l.webs {
				response, err := http.Get("http://" + web[c] + "/fail")
				if err != nil {
					return err
				}
				response.Body.Close()
			}
		}
		time.Sleep(300 * time.Millisecond)
	}
	if _, err := l.load(w, c, w.warmUp(c, round), round+1000); err != nil {
		return err
	}
	end, err := l.account(false)
	l.made[c] += end.keys - start.keys
	return err
}

// check tells why a sample is not one of its workload.
func (w workload) check(c contender, s sample, duration time.Duration) error {
	passed := s.Requests - s.Refused
	share := float64(s.Refused) / float64(s.Requests)
	period, err := time.ParseDuration(w.Period)
	if err != nil {
		return err
	}
	// wrk leaves a request under way on each connection, which the upstream may have seen; so did the one that warmed up.
	under := 2 * w.Connections
	refilled := float64(w.Rate) * (duration + 500*time.Millisecond).Seconds() / period.Seconds()
	limits := c == builtin || c == ours && !w.open
	switch {
	case s.Requests < 500:
		return fmt.Errorf("only %d requests", s.Requests)
	case s.Upstream < passed || s.Upstream > passed+under:
		return fmt.Errorf("%d requests reached the upstream, but %d passed", s.Upstream, passed)
	case !c.guards() && s.Refused != 0:
		return fmt.Errorf("%d refused, with nobody to refuse", s.Refused)
	case !c.guards() && s.RedisCalls > 0.001: // the last contender may be late with one
		return fmt.Errorf("redis was asked %.2f times a request, by nobody", s.RedisCalls)
	case c.guards() && w.refused == 0 && s.Refused != 0:
		return fmt.Errorf("%d refused, which this limit should not", s.Refused)
	case c.guards() && share < w.refused:
		return fmt.Errorf("only %.3f refused", share)
	case limits && w.clients.count == 1 && float64(s.Upstream) > float64(w.Capacity)+refilled:
		return fmt.Errorf("%d passed, over the limit", s.Upstream)
	case limits && s.Keys < s.Clients:
		return fmt.Errorf("redis was asked for %d keys, of %d clients", s.Keys, s.Clients)
	case c == builtin && w.refused == 0 && s.RedisCalls < 0.9:
		return fmt.Errorf("%.2f calls a request: the built-in limiter does not ask Redis", s.RedisCalls)
	case c == ours && limits && w.refused == 0 && s.RedisCalls == 0:
		return fmt.Errorf("our limiter never asks Redis")
	}
	return nil
}
