package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/gomodule/redigo/redis"
)

// sample is one contender in one round.
type sample struct {
	Requests   int     `json:"requests"`
	PerSecond  float64 `json:"perSecond"`
	Refused    float64 `json:"refused"`    // share
	TraefikCPU float64 `json:"traefikCPU"` // microseconds a request
	RedisCPU   float64 `json:"redisCPU"`   // microseconds a request
	RedisCalls float64 `json:"redisCalls"` // a request
	P50        float64 `json:"p50"`        // microseconds
	P99        float64 `json:"p99"`
	Keys       int     `json:"keys"`
}

// cpu is what the sample's request costs in all.
func (s sample) cpu() float64 { return s.TraefikCPU + s.RedisCPU }

// account is what the processes have used so far.
type account struct {
	traefik, redis float64 // microseconds
	calls          int64
}

func (l *lab) account() (account, error) {
	var a account
	for _, g := range l.gateways {
		used, err := processCPU(g.PID())
		if err != nil {
			return a, err
		}
		a.traefik += used
	}
	c, err := redis.Dial("tcp", l.redis.Address)
	if err != nil {
		return a, err
	}
	defer c.Close()
	info, err := redis.String(c.Do("INFO", "everything"))
	if err != nil {
		return a, err
	}
	for _, m := range regexp.MustCompile(`used_cpu_(?:user|sys):([0-9.]+)`).FindAllStringSubmatch(info, -1) {
		seconds, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			return a, err
		}
		a.redis += seconds * 1e6
	}
	for _, m := range regexp.MustCompile(`cmdstat_eval(?:sha)?:calls=(\d+)`).FindAllStringSubmatch(info, -1) {
		calls, err := strconv.ParseInt(m[1], 10, 64)
		if err != nil {
			return a, err
		}
		a.calls += calls
	}
	return a, nil
}

// processCPU returns the microseconds that a process has run, in user and kernel mode.
func processCPU(pid int) (float64, error) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(content[strings.LastIndexByte(string(content), ')')+1:]))
	const perTick = 10000 // USER_HZ is 100 wherever Linux is
	user, err := strconv.ParseFloat(fields[11], 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseFloat(fields[12], 64)
	return (user + system) * perTick, err
}

func (l *lab) do(command string, args ...any) (any, error) {
	c, err := redis.Dial("tcp", l.redis.Address)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.Do(command, args...)
}

// measure has a contender answer the workload for so long, and checks that it measured what it says.
func (l *lab) measure(w workload, c contender, duration time.Duration, seed int) (sample, error) {
	if _, err := l.do("FLUSHALL"); err != nil {
		return sample{}, err
	}
	path := "/" + w.name + "/" + slug(string(c))
	if w.open {
		for range 50 {
			for _, web := range l.webs {
				response, err := http.Get("http://" + web + path + "/fail")
				if err != nil {
					return sample{}, err
				}
				response.Body.Close()
			}
		}
		time.Sleep(300 * time.Millisecond)
	}
	warm := time.Second // wrk counts whole ones
	if _, err := l.load(w, path, warm, seed+1000); err != nil {
		return sample{}, err
	}
	before, err := l.account()
	if err != nil {
		return sample{}, err
	}
	loads, err := l.load(w, path, duration, seed)
	if err != nil {
		return sample{}, err
	}
	time.Sleep(50 * time.Millisecond)
	after, err := l.account()
	if err != nil {
		return sample{}, err
	}
	s := sample{}
	refused := 0
	for _, one := range loads {
		s.Requests += one.Requests
		refused += one.Refused
		s.PerSecond += float64(one.Requests) / one.Micros * 1e6
		s.P50 = max(s.P50, one.P50)
		s.P99 = max(s.P99, one.P99)
		if one.Broken > 0 {
			return s, fmt.Errorf("%d requests got no answer", one.Broken)
		}
	}
	n := float64(s.Requests)
	s.Refused = float64(refused) / n
	s.TraefikCPU = (after.traefik - before.traefik) / n
	s.RedisCPU = (after.redis - before.redis) / n
	s.RedisCalls = float64(after.calls-before.calls) / n
	keys, err := redis.Int(l.do("DBSIZE"))
	if err != nil {
		return s, err
	}
	s.Keys = keys
	return s, w.check(c, s)
}

// check tells why a sample is not one of its workload.
func (w workload) check(c contender, s sample) error {
	guarded := c != none && c != noop
	switch {
	case s.Requests < 1000:
		return fmt.Errorf("only %d requests", s.Requests)
	case !guarded && !w.open && s.Refused != 0:
		return fmt.Errorf("%.3f refused, with nobody to refuse", s.Refused)
	case guarded && w.refused == 0 && s.Refused != 0:
		return fmt.Errorf("%.4f refused, which this limit should not", s.Refused)
	case guarded && s.Refused < w.refused:
		return fmt.Errorf("only %.3f refused", s.Refused)
	case (c == builtin || c == ours) && s.Keys < w.keys:
		return fmt.Errorf("redis holds %d keys, not %d", s.Keys, w.keys)
	case c == builtin && w.refused == 0 && s.RedisCalls < 0.9:
		return fmt.Errorf("%.2f calls a request: the built-in limiter does not ask Redis", s.RedisCalls)
	case !guarded && s.RedisCalls != 0:
		return fmt.Errorf("redis was asked %.2f times a request, by nobody", s.RedisCalls)
	}
	return nil
}

// load is what wrk prints.
type load struct {
	Requests int     `json:"requests"`
	Micros   float64 `json:"micros"`
	Refused  int     `json:"refused"`
	Broken   int     `json:"broken"`
	P50      float64 `json:"p50"`
	P99      float64 `json:"p99"`
}

// load runs one wrk for each gateway, and shares the connections among them.
func (l *lab) load(w workload, path string, duration time.Duration, seed int) ([]load, error) {
	file := filepath.Join(l.dir, w.name+".lua")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(script, "CLIENTS", w.clients)), 0o644); err != nil {
		return nil, err
	}
	loads := make([]load, len(l.webs))
	results := make(chan error)
	for i, web := range l.webs {
		go func() {
			command := exec.Command("wrk", "-t1", "-c", strconv.Itoa(w.connections/len(l.webs)), "-d", fmt.Sprintf("%ds", int(duration.Seconds())),
				"-s", file, "http://"+web+path+w.path, strconv.Itoa(seed*10+i))
			out, err := command.Output()
			if err == nil {
				lines := strings.Split(strings.TrimSpace(string(out)), "\n")
				err = json.Unmarshal([]byte(lines[len(lines)-1]), &loads[i])
			}
			results <- err
		}()
	}
	var failed error
	for range l.webs {
		if err := <-results; err != nil {
			failed = fmt.Errorf("wrk: %w", err)
		}
	}
	return loads, failed
}
