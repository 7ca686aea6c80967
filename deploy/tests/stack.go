package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

const (
	healthyBody = `{"status":"healthy"}`
	limitedBody = `{"error":"Too many requests, please try again later."}`
	openBody    = `{"error":"Service temporarily unavailable due to circuit open."}`
)

// stack is the one that is tried.
type stack struct {
	gateway string
	api     string
	client  *http.Client

	settings *settings // once shown has read them
}

// settings of the middleware, as the API shows them.
type settings struct {
	capacity         int
	refillRate       int
	refillPeriod     time.Duration
	failureThreshold int
	successThreshold int
	resetTimeout     time.Duration
}

// reply is an answer, read whole.
type reply struct {
	status int
	header http.Header
	body   string
}

func (r reply) String() string { return fmt.Sprintf("%d %s", r.status, r.body) }

func (r reply) retryAfter() (time.Duration, error) {
	seconds, err := strconv.Atoi(r.header.Get("Retry-After"))
	if err != nil || seconds < 1 {
		return 0, fmt.Errorf("a %d with Retry-After %q", r.status, r.header.Get("Retry-After"))
	}
	return time.Duration(seconds) * time.Second, nil
}

func (s *stack) get(url string) (reply, error) {
	response, err := s.client.Get(url)
	if err != nil {
		return reply{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return reply{status: response.StatusCode, header: response.Header, body: string(body)}, err
}

// patient gets a URL and, while it is limited, waits for its turn.
func (s *stack) patient(url string) (reply, error) {
	const most = 10
	for i := 0; ; i++ {
		r, err := s.get(url)
		if err != nil || r.status != http.StatusTooManyRequests || i == most {
			return r, err
		}
		wait, err := r.retryAfter()
		if err != nil {
			return r, err
		}
		if wait > time.Minute {
			return r, fmt.Errorf("limited for the next %s", wait)
		}
		time.Sleep(wait)
	}
}

func (s *stack) healthy() (string, error) {
	r, err := s.get(s.gateway + "/health")
	if err != nil {
		return "", err
	}
	if r.status != http.StatusOK || r.body != healthyBody {
		return "", fmt.Errorf("%s, not 200 %s", r, healthyBody)
	}
	return r.String(), nil
}

func (s *stack) shown() (string, error) {
	const name = "gateway@docker"
	r, err := s.get(s.api + "/api/http/middlewares/" + name)
	if err != nil {
		return "", err
	}
	var shown struct {
		Status string
		Plugin struct {
			Resilience struct{ RateLimit, CircuitBreaker map[string]string }
		}
	}
	if err := json.Unmarshal([]byte(r.body), &shown); err != nil {
		return "", fmt.Errorf("%s: %w", r, err)
	}
	if shown.Status != "enabled" {
		return "", fmt.Errorf("%s is %q", name, shown.Status)
	}
	limit, breaker := shown.Plugin.Resilience.RateLimit, shown.Plugin.Resilience.CircuitBreaker
	read := &settings{}
	for _, number := range []struct {
		text   string
		target *int
	}{
		{limit["capacity"], &read.capacity},
		{limit["refillRate"], &read.refillRate},
		{breaker["failureThreshold"], &read.failureThreshold},
		{breaker["halfOpenSuccessThreshold"], &read.successThreshold},
	} {
		if *number.target, err = strconv.Atoi(number.text); err != nil {
			return "", err
		}
	}
	if read.refillPeriod, err = time.ParseDuration(limit["refillPeriod"]); err != nil {
		return "", err
	}
	if read.resetTimeout, err = time.ParseDuration(breaker["resetTimeout"]); err != nil {
		return "", err
	}
	s.settings = read
	return fmt.Sprintf("%s is enabled, with capacity %d and threshold %d", name, read.capacity, read.failureThreshold), nil
}

func (s *stack) proxied() (string, error) {
	r, err := s.patient(s.gateway + "/proxy/echo?from=tests")
	if err != nil {
		return "", err
	}
	var echo struct{ Path, Query string }
	if err := json.Unmarshal([]byte(r.body), &echo); err != nil || r.status != http.StatusOK {
		return "", fmt.Errorf("%s, not the upstream's echo", r)
	}
	if echo.Path != "/echo" || echo.Query != "from=tests" {
		return "", fmt.Errorf("the upstream was asked for %s?%s", echo.Path, echo.Query)
	}
	return "200, and the upstream was asked for " + echo.Path, nil
}
