package store

import (
	"errors"
	"fmt"
	"sync"
)

var errNoAnswer = errors.New("no server says where redis is")

// ballot counts the answers of several servers to the same question: at which address is the master?
type ballot struct {
	voters int
	last   string // the address that is known so far; empty: none
	left   string // the one that was known before that; empty: none, or it may be returned to

	mu      sync.Mutex // guards what follows
	votes   map[string]int
	pending int
	err     error // why a server did not answer
	ended   bool

	done sync.WaitGroup // until it has ended
}

func newBallot(voters int, last, left string) *ballot {
	b := &ballot{voters: voters, last: last, left: left, votes: map[string]int{}, pending: voters}
	b.done.Add(1)
	return b
}

// vote has one server asked and adds its answer. A panic counts as none: the ballot would not end without it.
func vote(b *ballot, ask func() (string, error)) {
	address, err := askSafely(ask)
	b.add(address, err)
}

func askSafely(ask func() (string, error)) (address string, err error) {
	defer func() {
		if panicked := recover(); panicked != nil {
			address = ""
			err = fmt.Errorf("panic: %v", panicked)
		}
	}()
	return ask()
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
	best, most, next := leadingLocked(b)
	isClear := most > next+b.pending && (best != b.left || isMajority(b, most))
	if !b.ended && (b.pending <= 0 || isClear) {
		b.ended = true
		b.done.Done()
	}
}

// leadingLocked returns the address with the most votes, their number, and that of the second one. If another has as many as
// the last known one, it is the other one: news spreads from one server to the next. But what was left is no news.
func leadingLocked(b *ballot) (best string, most, next int) {
	for address, count := range b.votes {
		if count > most || count == most && newness(b, address) > newness(b, best) {
			next = most
			best = address
			most = count
		} else if count > next {
			next = count
		}
	}
	return best, most, next
}

func newness(b *ballot, address string) int {
	if address == b.left {
		return 0
	}
	if address == b.last {
		return 1
	}
	return 2
}

func isMajority(b *ballot, votes int) bool { return 2*votes > b.voters }

// result waits for the end and returns the leading address. To return to the one that was left takes the majority of all
// servers: two masters would be used in turn while the servers disagree.
func (b *ballot) result() (string, error) {
	b.done.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	best, most, _ := leadingLocked(b)
	if most == 0 && b.err == nil {
		return "", errNoAnswer
	}
	if most == 0 {
		return "", b.err
	}
	if best == b.left && b.last != "" && !isMajority(b, most) {
		return b.last, nil
	}
	return best, nil
}
