// Command run starts the whole gateway on this machine: the real Traefik with the plugin, or several of them, the dummy
// upstream, and a Redis unless REDIS_HOST is set. It ends with Ctrl-C. With the argument check it only checks its settings, which come
// from the environment. It runs in the root of the project.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/resilient-gateway/resilience/harness/gateway"
	"github.com/resilient-gateway/resilience/internal/logging"
)

func main() {
	if err := run(len(os.Args) == 2 && os.Args[1] == "check"); err != nil {
		fmt.Fprintln(os.Stderr, "make run:", err)
		os.Exit(1)
	}
}

func run(onlyCheck bool) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	if null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0); err == nil {
		logging.SetOutput(null) // the plugin's reader of settings logs what it was given
	}
	s, err := read(os.Getenv)
	if err != nil {
		return err
	}
	if err := s.checkPorts(); err != nil || onlyCheck {
		return err
	}
	if err := s.chooseAddresses(); err != nil {
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
	logs, err := s.openLogs(root)
	if err != nil {
		return err
	}
	defer closeAll(logs)
	ended := make(chan string, len(s.gateways)+2)
	if s.ownRedis {
		redis, err := gateway.StartRedis(s.redis, dir, logs[0])
		if err != nil {
			return err
		}
		defer redis.Stop()
		watch("the Redis server", redis.Ended(), logs[0], ended)
		s.embedded = redis.Embedded
	}
	if s.upstream != "" {
		process, err := gateway.StartUpstream(root, s.upstream, logs[0])
		if err != nil {
			return err
		}
		defer process.Stop()
		watch("the upstream", process.Ended(), logs[0], ended)
	}
	processes, err := s.startGateways(root, dir, logs)
	for i, process := range processes {
		if process != nil {
			defer process.Stop()
			watch("the gateway", process.Ended(), logs[i], ended)
		}
	}
	if err != nil {
		return err
	}

	fmt.Print(s.greeting(names(logs), s.probe()))
	select {
	case <-ctx.Done():
		fmt.Println("\nstopping")
		return nil
	case what := <-ended:
		return errors.New(what)
	}
}

// startGateways starts all of them at once, and waits until each serves. It returns those that were started, also with an error.
func (s *settings) startGateways(root, dir string, logs []*os.File) ([]*gateway.Process, error) {
	processes, problems := make([]*gateway.Process, len(s.gateways)), make([]error, len(s.gateways))
	var started sync.WaitGroup
	for i, at := range s.gateways {
		started.Go(func() {
			own := filepath.Join(dir, fmt.Sprint("gateway", i)) // for its static file
			if problems[i] = os.Mkdir(own, 0o755); problems[i] != nil {
				return
			}
			traefik := &gateway.Traefik{Root: root, Dir: own, Web: at.web(), API: at.apiAddress(), Env: s.env(), Log: logs[i]}
			processes[i], problems[i] = traefik.Start()
			if problems[i] == nil {
				problems[i] = traefik.Serves("/health", "gateway@file")
			}
			if problems[i] != nil {
				problems[i] = fmt.Errorf("%w; see %s", problems[i], logs[i].Name())
			}
		})
	}
	started.Wait()
	return processes, errors.Join(problems...)
}

// watch reports the end of a part.
func watch(part string, isOver <-chan struct{}, log *os.File, ended chan<- string) {
	go func() {
		<-isOver
		ended <- fmt.Sprintf("%s has ended; see %s", part, log.Name())
	}()
}

// openLogs creates a log for each gateway, named by its port: another make run at the same time has others. Redis and the upstream
// write to the first.
func (s *settings) openLogs(root string) (logs []*os.File, err error) {
	for _, at := range s.gateways {
		name := "run.log"
		if at.port != defaultPort {
			name = fmt.Sprintf("run-%d.log", at.port)
		}
		log, err := os.Create(filepath.Join(root, "dist", name))
		if err != nil {
			closeAll(logs)
			return nil, err
		}
		logs = append(logs, log)
	}
	return logs, nil
}

func closeAll(files []*os.File) {
	for _, file := range files {
		file.Close()
	}
}

func names(files []*os.File) (names []string) {
	for _, file := range files {
		names = append(names, file.Name())
	}
	return names
}
