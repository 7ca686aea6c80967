package store

import (
	"errors"
	"net"
	"sync"
	"time"
)

// SentinelSettings say how sentinels are asked. Their addresses are the store's.
type SentinelSettings struct {
	Master   string // the name that they know the master by
	Username string
	Password string
}

// watchInterval is how often sentinels are asked for the master while it works: an old master may accept writes for some
// seconds after the sentinels have chosen another, or for longer if it cannot reach them.
const watchInterval = time.Second

// sentinels follows the master that sentinels announce. They are asked when the store needs a connection and has lost one, and
// each watchInterval in the background. All are asked at once: the address that most of them name counts.
type sentinels struct {
	master string
	askers []*asker

	// announced is called with the address if the background finds that another master is announced. It returns whether that
	// one is in use from then on.
	announced func(address string) bool

	questions questions

	mu       sync.Mutex // guards what follows
	current  string     // the address of the master; empty: not known
	doubtful bool       // ask before it is used again
	watched  bool
	closed   bool
}

func newSentinels(addresses []string, master string, open opener, announced func(address string) bool) *sentinels {
	t := &sentinels{master: master, announced: announced}
	for _, address := range addresses {
		t.askers = append(t.askers, &asker{address: address, open: open, keeps: true})
	}
	return t
}

func (t *sentinels) locate(deadline time.Time) (string, error) {
	last, doubtful := t.known()
	if !doubtful {
		return last, nil
	}
	// A sentinel that does not answer must leave time to connect.
	address, err := t.questions.ask(func() (string, error) {
		return t.ask(time.Now().Add(time.Until(deadline)/2), last)
	})
	if err != nil && last == "" {
		return "", err
	}
	if err != nil {
		return last, nil // no sentinel answers: it may still be the master, which the connection will show
	}
	t.note(address)
	return address, nil
}

// known returns the address of the master, and whether it must be asked for.
func (t *sentinels) known() (address string, doubtful bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.current, t.doubtful || t.current == ""
}

// note notes an announced master, and starts the background if this is the first.
func (t *sentinels) note(address string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.current = address
	t.doubtful = false
	if !t.watched {
		t.watched = true
		go t.runWatch()
	}
}

// ask asks all sentinels for the master.
func (t *sentinels) ask(deadline time.Time, last string) (string, error) {
	b := newBallot(len(t.askers))
	words := []string{"SENTINEL", "GET-MASTER-ADDR-BY-NAME", t.master}
	for _, one := range t.askers {
		a := one // R29
		go func() {
			defer func() { recover() }()
			answer, err := a.ask(deadline, words)
			if err != nil {
				b.add("", err)
				return
			}
			address, err := announcedIn(answer)
			b.add(address, err)
		}()
	}
	return b.result(last)
}

var errUnknownMaster = errors.New("the sentinels do not know a master of this name")

// announcedIn returns the address in a sentinel's answer: a host and a port, or nothing.
func announcedIn(answer interface{}) (string, error) {
	if answer == nil {
		return "", errUnknownMaster
	}
	pair, ok := answer.([]interface{})
	if !ok || len(pair) != 2 {
		return "", errNotRedis
	}
	host, isText := pair[0].(string)
	port, isPort := pair[1].(string)
	if !isText || !isPort {
		return "", errNotRedis
	}
	return net.JoinHostPort(host, port), nil
}

func (t *sentinels) verifiesRole() bool { return true }

func (t *sentinels) doubt() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.doubtful = true
}

func (t *sentinels) redirect(address string) { t.doubt() }

func (t *sentinels) describe() (kind, server string) {
	server, _ = t.known()
	return "sentinel", server
}

func (t *sentinels) close() {
	t.end()
	for _, a := range t.askers {
		a.close()
	}
}

func (t *sentinels) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
}

// runWatch asks the sentinels in the background until the end. It is a loop for the same reason as runChecks.
func (t *sentinels) runWatch() {
	defer func() { recover() }()
	for {
		time.Sleep(watchInterval/2 + jitter(watchInterval/2))
		if t.isClosed() {
			return
		}
		t.watch()
	}
}

// watch asks the sentinels once.
func (t *sentinels) watch() {
	defer func() { recover() }()
	last, doubtful := t.known()
	if doubtful {
		return // the next connection will ask
	}
	address, err := t.questions.ask(func() (string, error) {
		return t.ask(time.Now().Add(watchInterval/2), last)
	})
	if err == nil && address != last && t.announced(address) {
		t.note(address)
	}
}

func (t *sentinels) isClosed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.closed
}
