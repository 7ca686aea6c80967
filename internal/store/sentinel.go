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
	store  *Store
	master string
	askers []*asker

	questions questions

	noting sync.Mutex // held while a master is noted here and in the store, so that both know the same one

	mu       sync.Mutex // guards what follows; the store's mu may be held
	current  string     // the address of the master; empty: not known
	left     string     // the address of the one before; empty: there was none, or it may be returned to
	doubtful bool       // ask before it is used again
	watched  bool
	closed   bool
}

func newSentinels(s *Store, addresses []string, master string, open opener) *sentinels {
	t := &sentinels{store: s, master: master}
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

func (t *sentinels) previous() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.left
}

// note notes an announced master and closes the connections to others.
func (t *sentinels) note(address string) {
	closeAll(t.noteMaster(address))
}

// noteMaster has the store leave the old master before the new one is dialled: a dial to the old one that has begun then ends
// with a connection that is not used.
func (t *sentinels) noteMaster(address string) (unneeded []*conn) {
	t.noting.Lock()
	defer t.noting.Unlock()
	unneeded = t.store.expireOthers(address)
	t.use(address)
	return unneeded
}

// use has the master dialled from now on, and starts the background if it is the first.
func (t *sentinels) use(address string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if address != t.current {
		t.left = t.current
		t.current = address
	}
	t.doubtful = false
	if !t.watched {
		t.watched = true
		go t.runWatch()
	}
}

// ask asks all sentinels for the master.
func (t *sentinels) ask(deadline time.Time, last string) (string, error) {
	b := newBallot(len(t.askers), last, t.previous())
	words := []string{"SENTINEL", "GET-MASTER-ADDR-BY-NAME", t.master}
	for _, one := range t.askers {
		a := one // R29
		go func() {
			defer func() { recover() }()
			vote(b, func() (string, error) {
				answer, err := a.ask(deadline, words)
				if err != nil {
					return "", err
				}
				return announcedIn(answer)
			})
		}()
	}
	return b.result()
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

// failed has the next locate ask. If the current master cannot be used, the one before may be the better one.
func (t *sentinels) failed(address string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.doubtful = true
	if address == t.current {
		t.left = ""
	}
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

// watch asks the sentinels once. While Redis is unavailable, the checks ask them.
func (t *sentinels) watch() {
	defer func() { recover() }()
	if t.store.IsUnavailable() {
		return
	}
	last, _ := t.known()
	address, err := t.questions.ask(func() (string, error) {
		return t.ask(time.Now().Add(watchInterval/2), last)
	})
	if err == nil && address != last {
		t.follow(address)
	}
}

// follow uses another master that was announced, if it can be used.
func (t *sentinels) follow(address string) {
	if current, _ := t.known(); current == address {
		return // a request has found it
	}
	c, err := dialAndCheckAt(t.store, address)
	if err != nil {
		return
	}
	t.note(address)
	t.store.keepMade(c)
}

func (t *sentinels) isClosed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.closed
}
