package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"

	"github.com/gomodule/redigo/redis"
	"golang.org/x/sys/unix"
)

// counters are what has been used since the processes started.
type counters struct {
	traefik, redis float64 // CPU, microseconds
	calls          float64 // of scripts in Redis
	keys           int     // created in Redis: those it holds and those that have expired
	objects, bytes float64 // allocated in Traefik
	upstream       int     // requests that reached it
}

// readCounters reads all counters. It reads the CPU of the processes closest to the load, so that the cost of reading does not count.
func (t *testbed) readCounters(before bool) (c counters, err error) {
	readers := []func(*counters) error{t.readUpstream, t.readAllocations, t.readCalls, t.readCPU}
	for i := range readers {
		read := readers[i]
		if !before {
			read = readers[len(readers)-1-i]
		}
		if err := read(&c); err != nil {
			return c, err
		}
	}
	return c, nil
}

func (t *testbed) readCPU(c *counters) error {
	for _, g := range t.gateways {
		used, err := processCPU(g.PID())
		if err != nil {
			return err
		}
		c.traefik += used
	}
	used, err := processCPU(t.redis.PID())
	c.redis = used
	return err
}

// processCPU returns the microseconds that a process has run, in user and kernel mode, to the nanosecond. It includes threads that
// have ended. The files in /proc have ticks of ten milliseconds, or only threads that still run.
func processCPU(pid int) (float64, error) {
	const scheduled = 2 // CPUCLOCK_SCHED; this is what clock_getcpuclockid(3) does
	var used unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|scheduled), &used); err != nil {
		return 0, fmt.Errorf("the CPU clock of process %d: %w", pid, err)
	}
	return float64(used.Nano()) / 1000, nil
}

var (
	scriptCalls = regexp.MustCompile(`cmdstat_eval(?:sha)?:calls=(\d+)`)
	expiredKeys = regexp.MustCompile(`expired_keys:(\d+)`)
)

// readCalls reads how many scripts Redis has run, and how many keys were created in it.
func (t *testbed) readCalls(c *counters) error {
	info, err := redis.String(t.do("INFO", "everything"))
	if err != nil {
		return err
	}
	expired := expiredKeys.FindStringSubmatch(info)
	if expired == nil {
		return errors.New("INFO of Redis does not report expired_keys")
	}
	if c.keys, err = strconv.Atoi(expired[1]); err != nil {
		return err
	}
	held, err := redis.Int(t.do("DBSIZE"))
	if err != nil {
		return err
	}
	c.keys += held
	for _, m := range scriptCalls.FindAllStringSubmatch(info, -1) {
		calls, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			return err
		}
		c.calls += calls
	}
	return nil
}

var allocations = regexp.MustCompile(`(?m)^go_memstats_(mallocs|alloc_bytes)_total (\S+)$`)

// readAllocations reads the allocations from Traefik's metrics, in the cases that have metrics.
func (t *testbed) readAllocations(c *counters) error {
	if !t.configuration.Metrics {
		return nil
	}
	for _, api := range t.apiAddresses {
		body, err := fetch("http://" + api + "/metrics")
		if err != nil {
			return err
		}
		found := allocations.FindAllStringSubmatch(string(body), -1)
		if len(found) != 2 {
			return fmt.Errorf("traefik's metrics have %d counters of allocations; expected 2", len(found))
		}
		for _, m := range found {
			n, err := strconv.ParseFloat(m[2], 64)
			if err != nil {
				return err
			}
			if m[1] == "mallocs" {
				c.objects += n
			} else {
				c.bytes += n
			}
		}
	}
	return nil
}

func (t *testbed) readUpstream(c *counters) error {
	body, err := fetch("http://" + t.upstreamAddress + "/stats")
	if err != nil {
		return err
	}
	var stats struct{ Requests int }
	err = json.Unmarshal(body, &stats)
	c.upstream = stats.Requests
	return err
}

func fetch(url string) ([]byte, error) {
	response, err := http.Get(url)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, response.Status)
	}
	return io.ReadAll(response.Body)
}

func (t *testbed) do(command string, args ...any) (any, error) {
	conn, err := redis.Dial("tcp", t.redis.Address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.Do(command, args...)
}
