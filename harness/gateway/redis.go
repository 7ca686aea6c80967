package gateway

import (
	"io"
	"net"
	"os/exec"
	"time"

	"github.com/alicebob/miniredis/v2"
)

// Redis is one that was started here.
type Redis struct {
	Address  string
	Embedded bool // a miniredis in this process, for machines without redis-server
	process  *Process
	mini     *miniredis.Miniredis
	stop     chan struct{}
}

// StartRedis starts redis-server on the given host and port, keeping nothing on disk, or where there is none an embedded
// one.
func StartRedis(address, dir string, log io.Writer) (*Redis, error) {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return embed(address)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	command := exec.Command(path, "--bind", host, "--port", port, "--save", "", "--dir", dir)
	process, err := Start("Redis", command, log)
	if err != nil {
		return nil, err
	}
	return &Redis{Address: address, process: process}, process.await(listens(address), 10*time.Second)
}

func embed(address string) (*Redis, error) {
	mini := miniredis.NewMiniRedis()
	if err := mini.StartAddr(address); err != nil {
		return nil, err
	}
	r := &Redis{Address: address, Embedded: true, mini: mini, stop: make(chan struct{})}
	go r.keepTime()
	return r, nil
}

// keepTime keeps the clock of a miniredis going, which by itself it does not: keys must expire.
func (r *Redis) keepTime() {
	const step = 100 * time.Millisecond
	ticker := time.NewTicker(step)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			r.mini.FastForward(step)
		case <-r.stop:
			return
		}
	}
}

// Ended is closed when the process has ended; an embedded one never does.
func (r *Redis) Ended() <-chan struct{} {
	if r.Embedded {
		return nil
	}
	return r.process.Ended()
}

// PID returns the process's number; an embedded one has none.
func (r *Redis) PID() int { return r.process.PID() }

// Stop ends it.
func (r *Redis) Stop() {
	if r.Embedded {
		close(r.stop)
		r.mini.Close()
		return
	}
	r.process.Stop()
}
