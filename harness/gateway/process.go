// Package gateway starts the parts of the gateway as processes: the real Traefik with our plugin, a Redis, and the dummy
// upstream. `make run`, the end-to-end tests and the benchmarks all start them here.
package gateway

import (
	"fmt"
	"io"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// Process is a program that was started here and is ended here. It is safe for concurrent use.
type Process struct {
	Name    string
	command *exec.Cmd
	ended   chan struct{}

	mu  sync.Mutex // guards err
	err error
}

// Start starts the command, its output going to log. It does not wait for it to be ready.
func Start(name string, command *exec.Cmd, log io.Writer) (*Process, error) {
	command.Stdout = log
	command.Stderr = log
	detach(command)
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	p := &Process{Name: name, command: command, ended: make(chan struct{})}
	go func() {
		err := command.Wait()
		p.mu.Lock()
		p.err = err
		p.mu.Unlock()
		close(p.ended)
	}()
	return p, nil
}

// Ended is closed when the process has ended, for whatever reason.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// PID returns the process's number.
func (p *Process) PID() int { return p.command.Process.Pid }

// Signal sends the process a signal.
func (p *Process) Signal(signal syscall.Signal) { p.command.Process.Signal(signal) }

// Stop asks the process to end, and after ten seconds makes it.
func (p *Process) Stop() {
	p.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(10 * time.Second):
		p.Kill()
	}
}

// Kill ends the process at once, as a crash would.
func (p *Process) Kill() {
	p.Signal(syscall.SIGKILL)
	<-p.ended
}

// await waits until ready says so, or the process has ended, or too much time has passed.
func (p *Process) await(ready func() bool, patience time.Duration) error {
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		select {
		case <-p.ended:
			p.mu.Lock()
			defer p.mu.Unlock()
			return fmt.Errorf("%s has ended at its start: %v", p.Name, p.err)
		default:
		}
		if ready() {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	p.Kill()
	return fmt.Errorf("%s is not ready after %s", p.Name, patience)
}
