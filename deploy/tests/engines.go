package main

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	workers   = 20
	mostBurst = 200_000
)

func (s *stack) circuit() (string, error) {
	if s.settings == nil {
		return "", errNotRun
	}
	open, err := s.fail()
	if err != nil {
		return "", err
	}
	if open.body != openBody {
		return "", fmt.Errorf("%s, not %s", open, openBody)
	}
	wait, err := open.retryAfter()
	if err != nil {
		return "", err
	}
	if wait > s.settings.resetTimeout+time.Second {
		return "", fmt.Errorf("open for %s, beyond its %s", wait, s.settings.resetTimeout)
	}
	if err := s.heal(); err != nil {
		return "", err
	}
	return fmt.Sprintf("503 after %d failures, 200 after %s", s.settings.failureThreshold, s.settings.resetTimeout), nil
}

// fail has the upstream fail until the circuit is open, and returns the answer of the open circuit. One failure more than
// the threshold is allowed for: somebody else's success between ours starts the count anew.
func (s *stack) fail() (reply, error) {
	for i := 0; i < 2*s.settings.failureThreshold+1; i++ {
		r, err := s.patient(s.gateway + "/proxy/fail")
		if err != nil {
			return r, err
		}
		if r.status == http.StatusServiceUnavailable {
			return r, nil
		}
		if r.status != http.StatusInternalServerError {
			return r, fmt.Errorf("%s from a failing upstream", r)
		}
	}
	return reply{}, fmt.Errorf("not open after %d failures", 2*s.settings.failureThreshold+1)
}

// heal waits until the circuit lets probes through, and sends as many as close it.
func (s *stack) heal() error {
	deadline := time.Now().Add(s.settings.resetTimeout + 10*time.Second)
	for successes := 0; successes <= s.settings.successThreshold; {
		r, err := s.patient(s.gateway + "/proxy/ok")
		if err != nil {
			return err
		}
		switch {
		case r.status == http.StatusOK:
			successes++
		case r.status != http.StatusServiceUnavailable:
			return fmt.Errorf("%s from a recovering circuit", r)
		case time.Now().After(deadline):
			return fmt.Errorf("still open after %s", s.settings.resetTimeout+10*time.Second)
		default:
			time.Sleep(100 * time.Millisecond)
		}
	}
	return nil
}

// limited empties the bucket, and holds what was let through against what the settings allow.
func (s *stack) limited() (string, error) {
	if s.settings == nil {
		return "", errNotRun
	}
	if s.settings.capacity > mostBurst {
		return "", fmt.Errorf("a capacity of %d is more than a test should send", s.settings.capacity)
	}
	var passed, refused int64
	var mu sync.Mutex // guards first and other
	var first *reply
	var other error
	var done sync.WaitGroup
	begun := time.Now()
	left := int64(2*s.settings.capacity + workers)
	for i := 0; i < workers; i++ {
		done.Add(1)
		go func() {
			defer done.Done()
			for atomic.AddInt64(&left, -1) >= 0 && atomic.LoadInt64(&refused) < workers {
				r, err := s.get(s.gateway + "/proxy/ok")
				switch {
				case err == nil && r.status == http.StatusOK:
					atomic.AddInt64(&passed, 1)
				case err == nil && r.status == http.StatusTooManyRequests:
					atomic.AddInt64(&refused, 1)
					mu.Lock()
					first = &r
					mu.Unlock()
				default:
					mu.Lock()
					other = fmt.Errorf("%s %v", r, err)
					mu.Unlock()
					return
				}
			}
		}()
	}
	done.Wait()
	took := time.Since(begun)
	if other != nil {
		return "", other
	}
	if first == nil {
		return "", fmt.Errorf("%d requests in %s, and no 429", passed, took)
	}
	if first.body != limitedBody {
		return "", fmt.Errorf("%s, not %s", first, limitedBody)
	}
	if _, err := first.retryAfter(); err != nil {
		return "", err
	}
	refilled := float64(s.settings.refillRate) * float64(took) / float64(s.settings.refillPeriod)
	if allowed := int64(float64(s.settings.capacity) + refilled + 1); passed > allowed {
		return "", fmt.Errorf("%d passed in %s, where %d may", passed, took, allowed)
	}
	return fmt.Sprintf("%d passed, then 429", passed), nil
}
