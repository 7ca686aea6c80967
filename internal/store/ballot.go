package store

import (
	"errors"
	"sync"
)

var errNoAnswer = errors.New("no server says where redis is")

// ballot counts the answers of several servers to the same question: at which address is the master?
type ballot struct {
	mu      sync.Mutex // guards what follows
	votes   map[string]int
	pending int
	err     error // why a server did not answer
	ended   bool

	done sync.WaitGroup // until it has ended
}

func newBallot(voters int) *ballot {
	b := &ballot{votes: map[string]int{}, pending: voters}
	b.done.Add(1)
	return b
}

// add counts an answer, or a server without one. The ballot ends when the others cannot change its result.
func (b *ballot) add(address string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pending--
	if err != nil {
		b.err = err
	} else {
		b.votes[address]++
	}
	most, next := 0, 0
	for _, count := range b.votes {
		if count > most {
			next = most
			most = count
		} else if count > next {
			next = count
		}
	}
	if !b.ended && (b.pending <= 0 || most > next+b.pending) {
		b.ended = true
		b.done.Done()
	}
}

// result waits for the end and returns the address with the most votes. If another has as many as the last known one, it is
// the other one: news spreads from one server to the next.
func (b *ballot) result(last string) (string, error) {
	b.done.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	best, most := "", 0
	for address, count := range b.votes {
		if count > most || count == most && best == last {
			best, most = address, count
		}
	}
	if most == 0 && b.err == nil {
		return "", errNoAnswer
	}
	if most == 0 {
		return "", b.err
	}
	return best, nil
}
