package several

import (
	"fmt"
	"net/http"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/resilient-gateway/resilience/harness/window"
	"github.com/stretchr/testify/require"
)

// answer is what a client got.
type answer struct {
	key                  string
	status               int // 0: none
	sent, arrived, ended time.Duration
}

func (a answer) admitted() bool { return a.arrived > 0 }

// span is the time of a fault, or without one.
type span struct {
	name     string
	from, to time.Duration
}

// phase is the time in which the limit that it is named after is asked for more than it allows.
type phase span

// history is all that happened. It is safe for concurrent use.
type history struct {
	begun  time.Time
	phases []phase

	mu      sync.Mutex // guards what follows
	answers []answer
	faults  []span
}

func (h *history) now() time.Duration { return time.Since(h.begun) }

func (h *history) answer(a answer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answers = append(h.answers, a)
}

func (h *history) fault(s span) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults = append(h.faults, s)
}

// Report is what came of a run.
type Report struct {
	Seed     uint64
	Statuses map[int]int
	Faults   map[string]int
	Calm     time.Duration      // that was judged for it
	Most     map[string]float64 // of each limit's capacity, the largest share that was used in any window
	Used     map[string]float64 // the share of what a limit allows, while it was asked for more and there was no fault
	Lost     float64            // tokens of hours that were taken for requests which were not admitted
	Refused  int                // requests of the clients whose hours were read, that limits refused
	Unsure   int                // and that were answered without Redis's reply: their calls may have taken a token each
	Wrong    []string
}

// String returns the report as a text.
func (r *Report) String() string {
	return fmt.Sprintf("seed %d: answers %v, faults %v, %s without one were judged\nlargest window %s\nused %s\n%.1f tokens lost; %d requests refused, %d unsure\nwrong: %d\n%s",
		r.Seed, r.Statuses, r.Faults, r.Calm.Round(100*time.Millisecond), shares(r.Most), shares(r.Used), r.Lost, r.Refused, r.Unsure, len(r.Wrong), strings.Join(r.Wrong, "\n"))
}

func shares(of map[string]float64) string {
	var parts []string
	for limit, share := range of {
		parts = append(parts, fmt.Sprintf("%s %.2f %%", limit, 100*share))
	}
	sort.Strings(parts)
	return strings.Join(parts, ", ")
}

func (r *Report) wrong(format string, values ...any) {
	r.Wrong = append(r.Wrong, fmt.Sprintf(format, values...))
}

// judge holds the answers against each limit. Nothing is added to the history any more.
func (h *history) judge(o Options) *Report {
	r := &Report{Seed: o.Seed, Statuses: map[int]int{}, Faults: map[string]int{}, Most: map[string]float64{}, Used: map[string]float64{}}
	for _, a := range h.answers {
		r.Statuses[a.status]++
	}
	for _, s := range h.faults {
		r.Faults[s.name]++
	}
	h.judgeWindows(r, o)
	h.judgeUse(r, o)
	return r
}

// judgeWindows holds every window of time against each limit.
func (h *history) judgeWindows(r *Report, o Options) {
	all, byKey := []window.Span{}, map[string][]window.Span{}
	for _, a := range h.answers {
		if a.admitted() {
			s := window.Span{Start: a.sent.Microseconds(), End: a.arrived.Microseconds(), Tokens: 1}
			all = append(all, s)
			byKey[a.key] = append(byKey[a.key], s)
		}
	}
	check := func(limit, key string, spans []window.Span, capacity, rate int64, period time.Duration) {
		share := window.Most(spans, rate, period) / float64(capacity)
		r.Most[limit] = max(r.Most[limit], share)
		if share > 1 {
			r.wrong("%s %s: a window has %.1f %% of what is allowed", limit, key, 100*share)
		}
	}
	check("everyone", "", all, everyone, everyone, time.Second)
	for key, spans := range byKey {
		check("client", key, spans, capacity, rate, time.Second)
		check("hour", key, spans, o.hourly(), o.hourly(), time.Hour)
	}
}

// calm returns the times until then without a fault, and without an answer that says that Redis is unavailable: after a fault, or because the machine
// is slow.
func (h *history) calm(until time.Duration) (calm []span) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var uneasy []span
	for _, s := range h.faults {
		uneasy = append(uneasy, span{from: s.from, to: s.to + settled})
	}
	for _, a := range h.answers {
		if a.status == http.StatusServiceUnavailable {
			uneasy = append(uneasy, span{from: a.sent, to: a.ended + settled})
		}
	}
	sort.Slice(uneasy, func(i, j int) bool { return uneasy[i].from < uneasy[j].from })
	from := time.Duration(0)
	for _, s := range append(uneasy, span{from: until}) {
		if s.from > from {
			calm = append(calm, span{from: from, to: s.from})
		}
		from = max(from, s.to)
	}
	return calm
}

// wasCalm reports whether there was time enough to judge since then.
func (h *history) wasCalm(since time.Duration) bool {
	for _, s := range h.calm(h.now()) {
		if s.to-max(s.from, since) > drained+2*time.Second {
			return true
		}
	}
	return false
}

// drained is how long a bucket lasts that is asked for twice what it gets back, and a little more.
const drained = 1300 * time.Millisecond

// judgeUse compares what was admitted without a fault, once the buckets were drained, with what empty ones would have admitted of the same
// requests.
func (h *history) judgeUse(r *Report, o Options) {
	asked := append([]answer{}, h.answers...)
	sort.Slice(asked, func(i, j int) bool { return asked[i].sent < asked[j].sent })
	for i, phase := range h.phases[:2] {
		admitted, allowed := 0, 0
		for _, s := range h.calm(h.phases[len(h.phases)-1].to) {
			s.from, s.to = max(s.from, phase.from), min(s.to, phase.to)
			s.from += drained
			if s.to-s.from < time.Second {
				continue
			}
			r.Calm += s.to - s.from
			buckets := map[string]*bucket{}
			for _, a := range asked {
				if a.admitted() && a.arrived >= s.from && a.arrived <= s.to { // it was sent a little earlier, perhaps
					admitted++
				}
				if a.sent < s.from || a.ended > s.to {
					continue
				}
				key, limit := a.key, bucket{capacity: capacity, rate: rate, at: s.from}
				if i == 1 {
					key, limit = "", bucket{capacity: everyone, rate: everyone, at: s.from}
				}
				if buckets[key] == nil {
					buckets[key] = &limit
				}
				if buckets[key].take(a.sent) {
					allowed++
				}
			}
		}
		h.judgeShare(r, phase.name, float64(admitted), float64(allowed))
	}
	h.judgeShare(r, "hour", h.spentHours(), float64(greedy*o.hourly())+float64(greedy*o.hourly())*(h.phases[2].to-h.phases[0].from).Hours())
}

// judgeShare checks that a limit is used to 97 %.
func (h *history) judgeShare(r *Report, limit string, used, allowed float64) {
	r.Used[limit] = used / allowed
	if allowed < 100 {
		r.wrong("%s: only %.0f tokens were there to be used", limit, allowed)
	}
	if used < 0.97*allowed {
		r.wrong("%s: %.0f of %.0f tokens were used", limit, used, allowed)
	}
}

// spentHours returns how many requests of the greedy clients were admitted.
func (h *history) spentHours() (spent float64) {
	for _, a := range h.answers {
		if isGreedy(a.key) && a.admitted() {
			spent++
		}
	}
	return spent
}

func isGreedy(key string) bool { return strings.HasPrefix(key, "greedy") }

// bucket is what a limit allows.
type bucket struct {
	capacity, rate, level float64
	at                    time.Duration
}

func (b *bucket) take(at time.Duration) bool {
	b.level = min(b.capacity, b.level+b.rate*(at-b.at).Seconds())
	b.at = at
	if b.level < 1 {
		return false
	}
	b.level--
	return true
}

// readHours compares what Redis took of each greedy client's hour with what was admitted: a request that a limit refused has taken nothing.
// The buckets of these clients are never full again.
func (f *fleet) readHours(r *Report, o Options) {
	admitted, unsure, refused, first := map[string]int{}, map[string]int{}, map[string]int{}, map[string]time.Duration{}
	for _, a := range f.history.answers {
		switch {
		case !isGreedy(a.key):
			continue
		case a.admitted():
			admitted[a.key]++
		case a.status == http.StatusTooManyRequests:
			refused[a.key]++
		default:
			unsure[a.key]++
		}
		if at, asked := first[a.key]; !asked || a.sent < at {
			first[a.key] = a.sent
		}
	}
	for key, n := range admitted {
		level, at := f.readHour(key)
		perToken := time.Hour / time.Duration(o.hourly())
		back := float64(at.Sub(f.history.begun)-first[key]) / float64(perToken)
		lost := float64(o.hourly()) + back - level - float64(n)
		r.Lost += lost
		r.Refused += refused[key]
		r.Unsure += unsure[key]
		if lost > float64(unsure[key])+1 {
			r.wrong("client %s: %.1f tokens were taken for requests that were not admitted; %d were refused, %d got no reply of Redis", key, lost, refused[key], unsure[key])
		}
		if lost < -1 {
			r.wrong("client %s: %.1f requests were admitted without a token", key, -lost)
		}
	}
}

// readHour returns how many tokens Redis has of a client's hour, and when that was so.
func (f *fleet) readHour(key string) (level float64, at time.Time) {
	value := f.redis.Text("GET", "resilience:{limited}:bucket:header:"+key)
	number := func(text string) float64 {
		n, err := strconv.ParseFloat(text, 64)
		require.NoError(f.t, err, value)
		return n
	}
	own, named, ok := strings.Cut(value, "|hour ")
	require.True(f.t, ok, "%s: %s", key, value)
	words := strings.Fields(strings.Split(named, "|")[0])
	return number(words[0]) / number(words[1]), time.UnixMicro(int64(number(strings.Fields(own)[1])))
}
