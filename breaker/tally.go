package breaker

import (
	"fmt"
)

// tally is outcomes of requests that passed under one generation, in the order in which they came.
type tally struct {
	gateway string // that reports it, where the number of gateways counts

	succeeded bool  // one succeeded
	run       int64 // failures since the last success, or all if none succeeded

	// Only if outcomes are counted in bulk; requests is 0 otherwise.
	requests, failed, slow int64
	first                  int64 // failures before the first success
	longest                int64 // the most failures in a row
}

// add counts requests with one outcome.
func (t *tally) add(outcome Outcome, requests int64) {
	t.requests += requests
	if outcome == SlowSuccess || outcome == SlowFailure {
		t.slow += requests
	}
	if outcome == Success || outcome == SlowSuccess {
		t.succeeded = true
		t.run = 0
		return
	}
	t.failed += requests
	t.run += requests
	if !t.succeeded {
		t.first = t.run
	}
	if t.run > t.longest {
		t.longest = t.run
	}
}

// text returns what the report script takes of outcomes that were counted in bulk.
func (t tally) text() string {
	if t.requests == 0 {
		return ""
	}
	return fmt.Sprintf("%d %d %d %d %d", t.requests, t.failed, t.slow, t.first, t.longest)
}

// tallyOf returns the tally of one outcome that is reported alone.
func tallyOf(outcome Outcome) tally {
	if outcome == Failure {
		return tally{run: 1}
	}
	return tally{succeeded: outcome == Success}
}
