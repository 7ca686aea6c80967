package resilience

import "net/http"

// passage is a request that passed at a time because the view of the breaker was healthy then.
type passage struct {
	m        *Middleware
	r        *http.Request
	at       int64
	finished bool // the next handler has returned
}

// land tells the breaker of a passage that ended in a panic, which goes on. It stands in a file before lean.go: in a function
// literal, the interpreter silently defers nothing where what is deferred is declared further on.
func land(p *passage) {
	if !p.finished {
		tell(p, 0)
	}
}

func tell(p *passage, status int64) {
	p.m.tell(p.r, p.m.breaker.Passed(p.at), int(status), p.finished, p.m.redis.Timeout)
}
