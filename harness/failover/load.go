package failover

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sort"
	"strings"
	"sync"
	"time"
)

// answered is what a client saw.
type answered struct {
	kind   string // scarce, plenty, open or plain
	status int    // 0: none, or another 503 than that of an open circuit
	sent   time.Time
	took   time.Duration
}

// load is the clients of all gateways. It is safe for concurrent use.
type load struct {
	client *http.Client
	stop   chan struct{}
	done   sync.WaitGroup

	mu   sync.Mutex // guards seen
	seen []answered
}

func startLoad(members []*member, n names) *load {
	l := &load{
		client: &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 20}},
		stop:   make(chan struct{}),
	}
	for _, m := range members {
		for _, c := range []struct {
			kind, path string
			pause      time.Duration
		}{
			{"scarce", n.scarce, 30 * time.Millisecond},
			{"scarce", n.scarce, 30 * time.Millisecond},
			{"plenty", n.plenty, 25 * time.Millisecond},
			{"open", n.open, 50 * time.Millisecond},
			{"many", n.many, 5 * time.Millisecond},
			{"many", n.many, 5 * time.Millisecond},
			{"many", n.many, 5 * time.Millisecond},
			{"wide", n.wide, 10 * time.Millisecond},
			{"wide", n.wide, 10 * time.Millisecond},
			{"plain", "plain", 20 * time.Millisecond},
		} {
			l.done.Go(func() { l.ask("http://"+m.web+"/"+c.path, c.kind, c.pause) })
		}
	}
	return l
}

func (l *load) ask(url, kind string, pause time.Duration) {
	for {
		select {
		case <-l.stop:
			return
		case <-time.After(pause):
		}
		a := l.get(url, kind)
		l.mu.Lock()
		l.seen = append(l.seen, a)
		l.mu.Unlock()
	}
}

func (l *load) get(url, kind string) answered {
	a := answered{kind: kind, sent: time.Now()}
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return a
	}
	request.Header.Set(clientHeader, fmt.Sprint("client-", rand.IntN(200)))
	response, err := l.client.Do(request)
	a.took = time.Since(a.sent)
	if err != nil {
		return a
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	a.status = response.StatusCode
	if a.status == http.StatusServiceUnavailable && !strings.Contains(string(body), "circuit open") {
		a.status = 0
	}
	return a
}

func (l *load) end() {
	close(l.stop)
	l.done.Wait()
	l.client.CloseIdleConnections()
}

// since returns the answers to requests that were sent since a time, in their order.
func (l *load) since(begun time.Time) []answered {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []answered
	for _, a := range l.seen {
		if !a.sent.Before(begun) {
			found = append(found, a)
		}
	}
	sort.Slice(found, func(i, j int) bool { return found[i].sent.Before(found[j].sent) })
	return found
}

// counts counts answers by kind and status.
func counts(answers []answered) map[string]int {
	found := map[string]int{}
	for _, a := range answers {
		found[fmt.Sprint(a.kind, " ", a.status)]++
	}
	return found
}

// slowest returns how long the slowest answer took, of the middlewares and of the route without any.
func slowest(answers []answered) (ours, plain time.Duration) {
	for _, a := range answers {
		if a.kind == "plain" {
			plain = max(plain, a.took)
		} else {
			ours = max(ours, a.took)
		}
	}
	return ours, plain
}
