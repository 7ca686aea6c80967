package store

import "sync"

// question is one that several connections need an answer to at the same time: it is asked once.
type question struct {
	done    sync.WaitGroup // until what follows is set
	address string
	err     error
}

// questions asks one question at a time. The zero value is ready to use.
type questions struct {
	mu      sync.Mutex // guards current
	current *question  // nil: none is being asked
}

// ask returns the answer to the question that is being asked, or asks it.
func (qs *questions) ask(ask func() (string, error)) (string, error) {
	q, isNew := qs.join()
	if isNew {
		qs.answer(q, ask)
	}
	q.done.Wait()
	return q.address, q.err
}

func (qs *questions) join() (q *question, isNew bool) {
	qs.mu.Lock()
	defer qs.mu.Unlock()
	if qs.current != nil {
		return qs.current, false
	}
	made := &question{err: errNoAnswer}
	made.done.Add(1)
	qs.current = made
	return made, true
}

func (qs *questions) answer(q *question, ask func() (string, error)) {
	defer qs.finish(q)
	address, err := ask()
	q.address = address
	q.err = err
}

func (qs *questions) finish(q *question) {
	qs.mu.Lock()
	defer qs.mu.Unlock()
	qs.current = nil
	q.done.Done()
}
