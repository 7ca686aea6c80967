package failover

import (
	"sync"
	"time"

	"github.com/gomodule/redigo/redis"
	"github.com/resilient-gateway/resilience/internal/redistest"
)

// pings measures how long Redis servers take to answer, apart from the gateways. A server may stand still while it writes the cluster's map to
// a busy disk, or get no time on a busy machine: gateways are right to take it for unavailable then.
type pings struct {
	stop chan struct{}
	done sync.WaitGroup

	mu      sync.Mutex // guards slowest
	slowest time.Duration
}

func startPings(servers []*redistest.Server) *pings {
	p := &pings{stop: make(chan struct{})}
	for _, server := range servers {
		p.done.Go(func() { p.ask(server) })
	}
	return p
}

func (p *pings) ask(server *redistest.Server) {
	conn, err := redis.Dial("tcp", server.Addr())
	if err != nil {
		return
	}
	defer conn.Close()
	for {
		select {
		case <-p.stop:
			return
		case <-time.After(10 * time.Millisecond):
		}
		begun := time.Now()
		if _, err := conn.Do("PING"); err != nil {
			return
		}
		p.mu.Lock()
		p.slowest = max(p.slowest, time.Since(begun))
		p.mu.Unlock()
	}
}

// end ends the measurement, and returns the slowest answer.
func (p *pings) end() time.Duration {
	close(p.stop)
	p.done.Wait()
	return p.slowest
}
