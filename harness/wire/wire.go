// Package wire is a TCP proxy before a Redis which fails as networks do, and which sees what its clients do about that.
package wire

import (
	"bytes"
	"errors"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/resilient-gateway/resilience/harness/gateway"
)

// mode is what happens to what is sent.
type mode int

const (
	through mode = iota
	held         // nothing arrives while it lasts, and all of it afterwards, as over a network that comes back
	cut          // of each reply the first half arrives, and a reset
)

// Wire is one such proxy, on its own address while it lives. It is safe for concurrent use.
type Wire struct {
	target   string
	address  string
	patience time.Duration

	mu       sync.Mutex // guards what follows
	changed  *sync.Cond // mode, delay, hanging or closed has changed
	listener *net.TCPListener
	mode     mode
	delay    time.Duration
	hanging  bool // connections are not accepted
	closed   bool
	links    map[*link]bool
	fillers  []net.Conn
	seen     Seen
}

// Seen is what passed.
type Seen struct {
	Accepted int            // connections
	Open     int            // of them, now
	MostOpen int            // at once, since Watch
	Replies  int            // pieces sent on to clients
	Reused   int            // pieces that a client sent on a connection whose answer it had given up
	Errors   map[string]int // error replies by their first word
}

// link is one connection through the wire.
type link struct {
	client, server *net.TCPConn
	pending        []byte    // sent by the client while nothing passes
	waiting        time.Time // since when a piece is held, in either direction
}

// New returns a proxy before the target. A client has patience with an answer for so long, and must then give the
// connection up, too.
func New(target string, patience time.Duration) (*Wire, error) {
	w := &Wire{target: target, patience: patience, links: map[*link]bool{}, seen: Seen{Errors: map[string]int{}}}
	w.changed = sync.NewCond(&w.mu)
	for try := 1; ; try++ {
		address, err := gateway.FreeAddress() // which no outgoing connection takes while it is refused
		if err != nil {
			return nil, err
		}
		w.address = address
		err = w.listen(address)
		if err == nil || try == 3 { // another program may have been quicker
			return w, err
		}
	}
}

// Addr returns the host and port for clients.
func (w *Wire) Addr() string { return w.address }

func (w *Wire) listen(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	w.listener = listener.(*net.TCPListener)
	go w.accept(w.listener)
	return nil
}

func (w *Wire) accept(listener *net.TCPListener) {
	for {
		client, err := listener.AcceptTCP()
		if err != nil {
			return
		}
		w.mu.Lock()
		for w.hanging {
			w.changed.Wait()
		}
		w.mu.Unlock()
		go w.serve(client)
	}
}

func (w *Wire) serve(client *net.TCPConn) {
	l := &link{client: client}
	w.mu.Lock()
	w.seen.Accepted++
	w.links[l] = true
	w.seen.MostOpen = max(w.seen.MostOpen, len(w.links))
	w.mu.Unlock()
	defer w.drop(l)
	server, err := net.Dial("tcp", w.target)
	if err != nil {
		return
	}
	l.server = server.(*net.TCPConn)
	go w.pump(l, l.server, client, w.reply)
	w.pump(l, client, l.server, w.request)
}

// drop resets the connection: a client that waits for an answer must not wait on.
func (w *Wire) drop(l *link) {
	l.client.SetLinger(0)
	l.client.Close()
	if l.server != nil {
		l.server.Close()
	}
	w.mu.Lock()
	delete(w.links, l)
	w.mu.Unlock()
}

// pump carries pieces from one side to the other until either has gone. A piece is what was written at once.
func (w *Wire) pump(l *link, from, to *net.TCPConn, pass func(l *link, piece []byte) (send []byte, end bool)) {
	defer from.Close()
	defer to.Close()
	buffer := make([]byte, 256<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			piece, end := pass(l, buffer[:n])
			if _, err := to.Write(piece); err != nil || end {
				to.SetLinger(0)
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (w *Wire) request(l *link, piece []byte) ([]byte, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !l.waiting.IsZero() && time.Since(l.waiting) > w.patience {
		w.seen.Reused++
	}
	// Read on, to see when the client gives up.
	if w.mode == held {
		l.begin()
		l.pending = append(l.pending, piece...)
		return nil, false
	}
	return piece, false
}

func (l *link) begin() {
	if l.waiting.IsZero() {
		l.waiting = time.Now()
	}
}

// arrive sends on what was held. The wire's lock is held.
func (l *link) arrive() {
	l.waiting = time.Time{}
	if len(l.pending) > 0 {
		l.server.Write(l.pending)
		l.pending = nil
	}
}

func (w *Wire) reply(l *link, piece []byte) ([]byte, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if piece[0] == '-' {
		word, _, _ := strings.Cut(string(bytes.TrimSpace(piece[1:])), " ")
		w.seen.Errors[word]++
	}
	if delay := w.delay; delay > 0 {
		l.begin()
		w.mu.Unlock()
		time.Sleep(delay)
		w.mu.Lock()
		l.arrive()
	}
	for w.mode == held && !w.closed {
		l.begin()
		w.changed.Wait()
	}
	w.seen.Replies++
	if w.mode == cut {
		return piece[:len(piece)/2], true
	}
	return piece, false
}

func (w *Wire) set(m mode, delay time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mode, w.delay = m, delay
	if m != held {
		for l := range w.links {
			l.arrive()
		}
	}
	w.changed.Broadcast()
}

// Hold lets nothing through until Heal; connections are still made.
func (w *Wire) Hold() { w.set(held, 0) }

// Cut cuts every reply in the middle and resets its connection.
func (w *Wire) Cut() { w.set(cut, 0) }

// Slow delays each reply.
func (w *Wire) Slow(delay time.Duration) { w.set(through, delay) }

// Heal ends every fault.
func (w *Wire) Heal() error {
	w.set(through, 0)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.fillers {
		c.Close()
	}
	w.fillers, w.hanging = nil, false
	w.changed.Broadcast()
	if w.listener != nil {
		return backlog(w.listener, 128)
	}
	var err error
	for range 100 {
		if err = w.listen(w.address); err == nil {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

// Refuse closes the port and resets all connections.
func (w *Wire) Refuse() {
	w.mu.Lock()
	if w.listener != nil {
		w.listener.Close()
		w.listener = nil
	}
	w.mu.Unlock()
	w.Reset()
}

// Reset resets all connections.
func (w *Wire) Reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for l := range w.links {
		l.client.SetLinger(0)
		l.client.Close()
	}
}

// Vanish is Hold, and new connections get no answer either: the queue of the port is full.
func (w *Wire) Vanish() error {
	w.Hold()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hanging = true
	if err := backlog(w.listener, 0); err != nil {
		return err
	}
	// Twice in a row, for the first time one may still have been taken from the queue.
	for full := 0; full < 2; {
		c, err := net.DialTimeout("tcp", w.address, 100*time.Millisecond)
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			full++
			continue
		}
		if err != nil {
			return err
		}
		full = 0
		w.fillers = append(w.fillers, c)
	}
	return nil
}

// backlog changes how many connections may wait to be accepted.
func backlog(listener *net.TCPListener, n int) error {
	raw, err := listener.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = syscall.Listen(int(fd), n) })
	return errors.Join(err, failed)
}

// Seen returns what passed so far.
func (w *Wire) Seen() Seen {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := w.seen
	seen.Open = len(w.links)
	seen.Errors = map[string]int{}
	for word, n := range w.seen.Errors {
		seen.Errors[word] = n
	}
	return seen
}

// Watch begins to count anew what MostOpen tells.
func (w *Wire) Watch() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen.MostOpen = len(w.links)
}

// Close ends the proxy and its connections.
func (w *Wire) Close() {
	w.Heal()
	w.mu.Lock()
	w.closed = true
	w.listener.Close()
	w.changed.Broadcast()
	w.mu.Unlock()
	w.Reset()
}
