package resilience

import (
	"reflect"
)

// With ratios the breaker counts successes, too. On the fast path a success costs a lock and an addition: the breaker reports the number in
// the background (breaker/count.go).

// newCountingReporter is newReporter for a route with ratios. A failure that is pending needs no success to reset it at once.
func newCountingReporter(m *Middleware, own *statusSource) func(*tracked) {
	valueOf, toInt, call, methodAt, mu, view := reflect.ValueOf, valueInt, valueCall, valueMethodAt, m.mu, m.view
	var none []reflect.Value
	return func(p *tracked) {
		if p.finished {
			//lint:ignore S1021 the interpreter makes two values for :=
			var status int64
			status = toInt(call(methodAt(valueOf(p.w), own.status), none)[0])
			if status >= internalServerError {
				reportTracked(m, p, own)
			} else if status < statusOK {
				reportSwitched(m, p)
			} else {
				mu.Lock()
				if p.at < view.PassesSince {
					countPassLocked(m, p)
				} else {
					view.Passes++
				}
				mu.Unlock()
			}
		} else {
			reportTracked(m, p, own)
		}
	}
}

// newCountingFieldReporter is newFieldReporter for a route with ratios.
func newCountingFieldReporter(m *Middleware, own *statusSource) func(*tracked) {
	valueOf, toInt, typeOf, elem, byIndex, mu, view := reflect.ValueOf, valueInt, valueType, valueElem, valueFieldByIndex, m.mu, m.view
	inside, paths := own.fields.inside, knownWriters.paths()
	return func(p *tracked) {
		if p.finished {
			var (
				status int64
				writer reflect.Value
				path   []int
			)
			writer = elem(byIndex(elem(valueOf(p.w)), inside))
			path = paths[typeOf(writer)]
			if path == nil {
				reportRuled(m, p, own)
				return
			}
			status = toInt(byIndex(elem(writer), path))
			if status >= internalServerError {
				reportTracked(m, p, own)
			} else if status < statusOK {
				reportSwitched(m, p)
			} else {
				mu.Lock()
				if p.at < view.PassesSince {
					countPassLocked(m, p)
				} else {
					view.Passes++
				}
				mu.Unlock()
			}
		} else {
			reportTracked(m, p, own)
		}
	}
}

// countPassLocked counts a success that is the first since the breaker's last report, or that may have passed before its last change of state.
func countPassLocked(m *Middleware, p *tracked) { m.breaker.CountPassLocked(p.at, m.policy) }

// reportSwitched counts an answer without a final status, which may be a switch of protocols.
func reportSwitched(m *Middleware, p *tracked) {
	reportSwitch(m, p)
	countPass(m, p)
}

// countPass counts a success as the fast path does.
func countPass(m *Middleware, p *tracked) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p.at < m.view.PassesSince {
		countPassLocked(m, p)
	} else {
		m.view.Passes++
	}
}
