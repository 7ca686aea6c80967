package store

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

var errBusy = errors.New("it has not answered the last question")

// asker asks one server, over one connection, which it keeps if it is asked often.
type asker struct {
	address string
	open    opener
	keeps   bool

	mu     sync.Mutex // guards what follows
	busy   bool
	kept   *conn
	closed bool
}

// take begins a question. It returns the connection that was kept, or nil.
func (a *asker) take() (*conn, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.busy {
		return nil, errBusy
	}
	a.busy = true
	c := a.kept
	a.kept = nil
	return c, nil
}

// put ends a question. c is the connection, or nil if it failed.
func (a *asker) put(c *conn) {
	if !a.keep(c) {
		closeSafely(c)
	}
}

func (a *asker) keep(c *conn) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.busy = false
	if c == nil || !a.keeps || a.closed {
		return false
	}
	a.kept = c
	return true
}

// ask sends a command and returns the answer, by the deadline. If a kept connection has died, it makes another.
func (a *asker) ask(deadline time.Time, words []string) (answer interface{}, err error) {
	c, err := a.take()
	if err != nil {
		return nil, fmt.Errorf("%s: %s", a.address, err.Error())
	}
	defer func() {
		if panicked := recover(); panicked != nil {
			answer = nil
			err = fmt.Errorf("panic: %v", panicked)
		}
		a.put(c)
	}()
	if c != nil {
		c, answer, err = askOver(c, deadline, words)
		if err == nil || isTimeout(err) {
			return answer, err
		}
	}
	c, answer, err = a.open.ask(a.address, deadline, words)
	return answer, err
}

func (a *asker) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	closeSafely(a.kept)
	a.kept = nil
}
