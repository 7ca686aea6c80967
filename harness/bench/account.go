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

// account is what has been used so far.
type account struct {
	traefik, redis float64 // CPU, microseconds
	calls          float64 // of scripts in Redis
	keys           int     // in Redis, and that were in it
	objects, bytes float64 // allocated in Traefik
	upstream       int     // requests that reached it
}

// account reads it. The processes' CPU is read closest to the load: what the reading itself costs does not count.
func (l *lab) account(before bool) (a account, err error) {
	readers := []func(*account) error{l.readUpstream, l.readAllocations, l.readCalls, l.readCPU}
	for i := range readers {
		read := readers[i]
		if !before {
			read = readers[len(readers)-1-i]
		}
		if err := read(&a); err != nil {
			return a, err
		}
	}
	return a, nil
}

func (l *lab) readCPU(a *account) error {
	for _, g := range l.gateways {
		used, err := processCPU(g.PID())
		if err != nil {
			return err
		}
		a.traefik += used
	}
	used, err := processCPU(l.redis.PID())
	a.redis = used
	return err
}

// processCPU returns the microseconds that a process has run, in user and kernel mode: all its threads, also those that
// have ended, to the nanosecond. /proc tells it in ticks of ten milliseconds, or of each living thread alone.
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

// readCalls reads what Redis was asked for.
func (l *lab) readCalls(a *account) error {
	info, err := redis.String(l.do("INFO", "everything"))
	if err != nil {
		return err
	}
	expired := expiredKeys.FindStringSubmatch(info)
	if expired == nil {
		return errors.New("redis does not tell how many keys have expired")
	}
	if a.keys, err = strconv.Atoi(expired[1]); err != nil {
		return err
	}
	held, err := redis.Int(l.do("DBSIZE"))
	if err != nil {
		return err
	}
	a.keys += held
	for _, m := range scriptCalls.FindAllStringSubmatch(info, -1) {
		calls, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			return err
		}
		a.calls += calls
	}
	return nil
}

var allocations = regexp.MustCompile(`(?m)^go_memstats_(mallocs|alloc_bytes)_total (\S+)$`)

// readAllocations reads what Traefik's metrics tell of its memory; a bare one has none.
func (l *lab) readAllocations(a *account) error {
	if l.bare {
		return nil
	}
	for _, api := range l.apis {
		body, err := fetch("http://" + api + "/metrics")
		if err != nil {
			return err
		}
		found := allocations.FindAllStringSubmatch(string(body), -1)
		if len(found) != 2 {
			return fmt.Errorf("traefik's metrics tell %d times of allocations, not twice", len(found))
		}
		for _, m := range found {
			n, err := strconv.ParseFloat(m[2], 64)
			if err != nil {
				return err
			}
			if m[1] == "mallocs" {
				a.objects += n
			} else {
				a.bytes += n
			}
		}
	}
	return nil
}

func (l *lab) readUpstream(a *account) error {
	body, err := fetch("http://" + l.address + "/stats")
	if err != nil {
		return err
	}
	var stats struct{ Requests int }
	err = json.Unmarshal(body, &stats)
	a.upstream = stats.Requests
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

func (l *lab) do(command string, args ...any) (any, error) {
	c, err := redis.Dial("tcp", l.redis.Address)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.Do(command, args...)
}
