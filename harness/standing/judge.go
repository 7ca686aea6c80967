package standing

import (
	"fmt"
	"net/http"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/resilient-gateway/resilience/harness/window"
)

// arrival is a request that reached the service: it was admitted after it was sent, and before it arrived.
type arrival struct {
	limit, key    string
	sent, arrived time.Duration
	cost          int64
}

// span is a time.
type span struct{ from, to time.Duration }

// history is all that happened. It is safe for concurrent use.
type history struct {
	begun time.Time

	mu       sync.Mutex // guards what follows
	arrivals []arrival
	pauses   []span // Redis was stopped
	statuses map[int]int
}

func (h *history) now() time.Duration { return time.Since(h.begun) }

// ServeHTTP is the service.
func (h *history) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	sent, _ := strconv.ParseInt(r.Header.Get("X-Sent"), 10, 64)
	cost, _ := strconv.ParseInt(r.Header.Get("X-Cost"), 10, 64)
	name, _, _ := strings.Cut(r.URL.Path[1:], "/")
	h.mu.Lock()
	defer h.mu.Unlock()
	h.arrivals = append(h.arrivals, arrival{limit: name, key: r.Header.Get("X-Key"), sent: time.Duration(sent), arrived: h.now(), cost: cost})
}

func (h *history) pause(from time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pauses = append(h.pauses, span{from, h.now()})
}

func (h *history) status(status int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.statuses == nil {
		h.statuses = map[int]int{}
	}
	h.statuses[status]++
}

// Report is what came of a run.
type Report struct {
	Seed     uint64
	Statuses map[int]int // 0: no answer, because the gateway was killed
	Kills    int
	Judged   map[string]*Judged // by limit
	Wrong    []string
}

// Judged is what was found of one limit.
type Judged struct {
	Capacity int64
	Clients  int
	Requests int     // that were admitted
	Most     float64 // the most tokens that any window of any client has beyond its rate
	Standing int     // requests of new clients that were admitted while Redis was stopped
}

// String returns the report as a text.
func (r *Report) String() string {
	var lines []string
	for _, j := range r.Judged {
		lines = append(lines, fmt.Sprintf("capacity %7d: %d requests of %d clients, largest window %.2f, %d standing tokens used while Redis was stopped",
			j.Capacity, j.Requests, j.Clients, j.Most, j.Standing))
	}
	sort.Strings(lines)
	return fmt.Sprintf("seed %d: %d gateways killed, answers %v\n%s\nwrong: %d\n%s",
		r.Seed, r.Kills, r.Statuses, strings.Join(lines, "\n"), len(r.Wrong), strings.Join(r.Wrong, "\n"))
}

func (r *Report) wrong(format string, values ...any) {
	r.Wrong = append(r.Wrong, fmt.Sprintf(format, values...))
}

// judge holds every window of every client against its limit. Nothing is added to the history any more.
func (h *history) judge(o Options, kills int) *Report {
	r := &Report{Seed: o.Seed, Statuses: h.statuses, Kills: kills, Judged: map[string]*Judged{}}
	for status, n := range h.statuses {
		if status != 0 && status != http.StatusOK && status != http.StatusTooManyRequests {
			r.wrong("%d answers with status %d", n, status)
		}
	}
	for _, l := range limits {
		r.Judged[l.name()] = h.judgeLimit(r, l)
	}
	return r
}

func (h *history) judgeLimit(r *Report, l limit) *Judged {
	j := &Judged{Capacity: l.capacity}
	first := map[string]time.Duration{}
	byKey := map[string][]window.Span{}
	for _, a := range h.arrivals {
		if a.limit != l.name() {
			continue
		}
		j.Requests++
		byKey[a.key] = append(byKey[a.key], window.Span{Start: a.sent.Microseconds(), End: a.arrived.Microseconds() + 1, Tokens: a.cost})
		if at, asked := first[a.key]; !asked || a.sent < at {
			first[a.key] = a.sent
		}
	}
	j.Clients = len(byKey)
	j.Standing = h.standing(l, first)
	for key, spans := range byKey {
		most := window.Most(spans, l.rate, time.Second)
		j.Most = max(j.Most, most)
		if most > float64(l.capacity) {
			r.wrong("client %s: a window has %.2f tokens beyond its rate, of %d", key, most, l.capacity)
		}
	}
	return j
}

// standing returns how many requests have used standing tokens for sure: Redis was stopped from before their client's first request until
// they had arrived.
func (h *history) standing(l limit, first map[string]time.Duration) (n int) {
	for _, a := range h.arrivals {
		for _, p := range h.pauses {
			if a.limit == l.name() && first[a.key] >= p.from && a.arrived <= p.to {
				n++
			}
		}
	}
	return n
}
