// Command run starts the whole gateway on this machine: the real Traefik with the plugin, the dummy upstream, and a Redis
// unless REDIS_HOST is set. It ends with Ctrl-C. It runs in the root of the project.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/resilient-gateway/resilience/harness/gateway"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "run:", err)
		os.Exit(1)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	s, err := read(os.Getenv)
	if err != nil {
		return err
	}
	if err := s.check(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "resilience-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	return s.serve(ctx, root, dir)
}

// serve starts the parts, greets, and ends the parts in turn when ctx is done or one of them has ended.
func (s *settings) serve(ctx context.Context, root, dir string) error {
	logFile := filepath.Join(root, "dist", "run.log")
	log, err := os.Create(logFile)
	if err != nil {
		return err
	}
	defer log.Close()

	var redisEnded <-chan struct{}
	if s.ownRedis {
		redis, err := gateway.StartRedis(s.redis, dir, log)
		if err != nil {
			return err
		}
		defer redis.Stop()
		redisEnded = redis.Ended()
		s.embedded = redis.Embedded
	}
	upstreamEnded, stopUpstream, err := s.startUpstream(root, log)
	if err != nil {
		return err
	}
	defer stopUpstream()
	traefik := &gateway.Traefik{Root: root, Dir: dir, Web: s.web, API: s.api, Env: s.env(), Log: log}
	process, err := traefik.Start()
	if err != nil {
		return fmt.Errorf("%w; see %s", err, logFile)
	}
	defer process.Stop()
	if err := traefik.Serves("/health", "gateway@file"); err != nil {
		return err
	}

	fmt.Print(s.greeting(logFile))
	select {
	case <-ctx.Done():
		fmt.Println("\nstopping")
		return nil
	case <-process.Ended():
		return fmt.Errorf("the gateway has ended; see %s", logFile)
	case <-upstreamEnded:
		return fmt.Errorf("the upstream has ended; see %s", logFile)
	case <-redisEnded:
		return fmt.Errorf("the Redis server has ended; see %s", logFile)
	}
}

// startUpstream starts the dummy upstream unless UPSTREAM_URL names another.
func (s *settings) startUpstream(root string, log *os.File) (ended <-chan struct{}, stop func(), err error) {
	if s.upstream == "" {
		return nil, func() {}, nil
	}
	process, err := gateway.StartUpstream(root, s.upstream, log)
	if err != nil {
		return nil, nil, err
	}
	return process.Ended(), process.Stop, nil
}
