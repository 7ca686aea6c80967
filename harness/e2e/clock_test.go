package e2e

import (
	"encoding/binary"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// clockSource is preloaded into redis-server and steps the clock of the day for it, and only that. libfaketime would do
// so too, but Debian's redis-server does not start under it: its allocator asks for the time before libfaketime is ready.
const clockSource = `#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *step; // microseconds

__attribute__((constructor)) static void begin(void) {
	void *p = mmap(0, 8, PROT_READ, MAP_SHARED, open(getenv("CLOCK_STEP"), O_RDONLY), 0);
	if (p == MAP_FAILED) abort();
	step = p;
}

int clock_gettime(clockid_t id, struct timespec *t) {
	int failed = syscall(SYS_clock_gettime, id, t);
	if (!failed && id == CLOCK_REALTIME && step) {
		int64_t now = t->tv_sec * 1000000LL + t->tv_nsec / 1000 + *step;
		t->tv_sec = now / 1000000;
		t->tv_nsec = now % 1000000 * 1000;
	}
	return failed;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone) {
	struct timespec now;
	int failed = clock_gettime(CLOCK_REALTIME, &now);
	t->tv_sec = now.tv_sec;
	t->tv_usec = now.tv_nsec / 1000;
	return failed;
}

time_t time(time_t *t) {
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	if (t) *t = now.tv_sec;
	return now.tv_sec;
}
`

// clock is that of one Redis.
type clock struct{ step []byte }

// startWithClock starts a Redis whose clock can be stepped.
func startWithClock(t *testing.T) (*redistest.Server, *clock) {
	dir := t.TempDir()
	source, library, file := filepath.Join(dir, "clock.c"), filepath.Join(dir, "clock.so"), filepath.Join(dir, "step")
	require.NoError(t, os.WriteFile(source, []byte(clockSource), 0o600))
	output, err := exec.Command("cc", "-O2", "-shared", "-fPIC", "-o", library, source).CombinedOutput()
	require.NoError(t, err, "a C compiler is needed, as it is for go test -race: %s", output)
	require.NoError(t, os.WriteFile(file, make([]byte, 8), 0o600))
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	step, err := syscall.Mmap(int(f.Fd()), 0, 8, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	require.NoError(t, err)
	t.Setenv("LD_PRELOAD", library)
	t.Setenv("CLOCK_STEP", file)
	server := redistest.Start(t)
	os.Unsetenv("LD_PRELOAD") // for Redis alone
	return server, &clock{step}
}

// set sets the clock to so far from the truth.
func (c *clock) set(step time.Duration) {
	binary.NativeEndian.PutUint64(c.step, uint64(step.Microseconds()))
}

const (
	clockCapacity = 50
	clockRate     = 10 // a second
	clockReset    = time.Second
	clockProbe    = time.Second
)

type clockWalk struct {
	name  string
	steps []time.Duration // from the truth, one after another
	// forward is what the steps forward fill: by Redis's clock that time has passed. A bucket holds no more than it does.
	forward float64
}

var clockWalks = []clockWalk{
	{"a second back", []time.Duration{-time.Second}, 0},
	{"an hour back", []time.Duration{-time.Hour}, 0},
	{"a day back in four steps", []time.Duration{-6 * time.Hour, -12 * time.Hour, -18 * time.Hour, -24 * time.Hour}, 0},
	{"a year back", []time.Duration{-365 * 24 * time.Hour}, 0},
	{"twenty years back", []time.Duration{-20 * 365 * 24 * time.Hour}, 0},
	{"an hour forward", []time.Duration{time.Hour}, clockCapacity},
	{"a year forward", []time.Duration{365 * 24 * time.Hour}, clockCapacity},
	{"an hour forward and back", []time.Duration{time.Hour, 0}, clockCapacity},
	{"to and fro", []time.Duration{300 * time.Millisecond, 0, 300 * time.Millisecond, 0, 300 * time.Millisecond, 0}, 3 * 0.3 * clockRate},
}

func TestClock(t *testing.T) {
	up := startUpstream(t)
	middlewares := map[string]block{}
	rows := make([]*clocked, len(clockWalks))
	for i := range clockWalks {
		c := &clocked{path: fmt.Sprint("/row", i)}
		c.server, c.clock = startWithClock(t)
		name := c.path[1:]
		middlewares[name+"-limit"] = block{
			"redis": redisBlock(c.server), "rateLimit": block{"capacity": clockCapacity, "refillRate": clockRate},
		}
		middlewares[name+"-circuit"] = block{"redis": redisBlock(c.server), "circuitBreaker": block{
			"failureThreshold": 1, "resetTimeout": clockReset.String(), "halfOpenSuccessThreshold": 1, "probeTimeout": clockProbe.String(),
		}}
		rows[i] = c
	}
	g := startTraefik(t, options{upstream: up, dynamic: writeRows(t, middlewares)})
	var done sync.WaitGroup
	for i, walk := range clockWalks {
		done.Go(func() {
			t.Run(walk.name, func(t *testing.T) {
				rows[i].t, rows[i].g = t, g
				rows[i].run(walk)
			})
		})
	}
	done.Wait()
	require.Empty(t, g.events("redis unavailable"))
	require.Empty(t, g.events("unexpected redis reply"))
}

// clocked is a limit and a circuit breaker on a Redis with a clock that is stepped.
type clocked struct {
	t      *testing.T
	g      *traefik
	path   string
	server *redistest.Server
	clock  *clock
}

func (c *clocked) run(walk clockWalk) {
	begun := time.Now()
	full := c.drain()
	c.fail()
	more := 0
	for _, step := range walk.steps {
		c.clock.set(step)
		more += c.press(300 * time.Millisecond)
	}
	more += c.press(time.Second)
	most := clockCapacity + walk.forward + clockRate*time.Since(begun).Seconds() + 1
	c.t.Logf("%d at first, and %d during the steps: %.0f at the most", full, more, most)
	require.LessOrEqual(c.t, full+more, int(most), "a step minted tokens")
	require.GreaterOrEqual(c.t, more, clockRate/2, "the bucket fills as if nothing had happened")

	// Redis cuts the time to its own length when it next hears of the circuit.
	c.requireCloses(clockReset)
	c.requireProbeEnds(walk.steps[len(walk.steps)-1])
}

// drain takes all tokens there are and returns how many that were.
func (c *clocked) drain() (taken int) {
	for c.g.get(c.path+"-limit").status == http.StatusOK {
		taken++
	}
	require.GreaterOrEqual(c.t, taken, clockCapacity)
	return taken
}

// press asks all the time and returns how often that was granted.
func (c *clocked) press(length time.Duration) (taken int) {
	for end := time.Now().Add(length); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if c.g.get(c.path+"-limit").status == http.StatusOK {
			taken++
		}
	}
	return taken
}

// fail opens the circuit.
func (c *clocked) fail() {
	opens := func() bool {
		c.g.get(c.path + "-circuit/fail")
		return c.g.get(c.path+"-circuit").status == http.StatusServiceUnavailable
	}
	require.Eventually(c.t, opens, 5*time.Second, 10*time.Millisecond)
}

// requireCloses requires that the circuit closes in that time, and a second for the probe on a busy machine.
func (c *clocked) requireCloses(within time.Duration) {
	c.t.Helper()
	closes := func() bool { return c.g.get(c.path+"-circuit").status == http.StatusOK }
	require.Eventually(c.t, closes, within+time.Second, 10*time.Millisecond, "open past its time")
}

// requireProbeEnds steps the clock back while a probe without an answer is under way, which must give its place free by
// its own time.
func (c *clocked) requireProbeEnds(step time.Duration) {
	c.fail()
	probe := make(chan bool)
	go func() {
		defer close(probe)
		for c.g.get(c.path+"-circuit/slow?seconds=4").status == http.StatusServiceUnavailable {
			time.Sleep(10 * time.Millisecond)
		}
	}()
	probing := func() bool {
		return c.server.Hash("resilience:{" + c.path[1:] + "-circuit}:breaker")["state"] == "half-open"
	}
	require.Eventually(c.t, probing, clockReset+2*time.Second, 10*time.Millisecond)
	c.clock.set(step - time.Hour)
	c.requireCloses(clockProbe + clockReset) // lost, and with that open once more
	<-probe
}
