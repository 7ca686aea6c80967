package gateway

import (
	"net"
	"sync"
	"time"
)

// Delay makes a server seem further away: a proxy before it that holds back every byte, in both directions, for half of
// the time that it adds to a round trip.
type Delay struct {
	Address string
	target  string
	half    time.Duration
	accepts net.Listener

	mu    sync.Mutex // guards conns
	conns []net.Conn
}

// StartDelay starts a proxy before the target, a host and port, that adds so much to each round trip.
func StartDelay(target string, added time.Duration) (*Delay, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	d := &Delay{Address: listener.Addr().String(), target: target, half: added / 2, accepts: listener}
	go d.serve()
	return d, nil
}

// Stop ends it, and cuts the connections through it.
func (d *Delay) Stop() {
	d.accepts.Close()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.conns {
		c.Close()
	}
}

func (d *Delay) serve() {
	for {
		near, err := d.accepts.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", d.target)
		if err != nil {
			near.Close()
			continue
		}
		d.mu.Lock()
		d.conns = append(d.conns, near, far)
		d.mu.Unlock()
		go d.pass(near, far)
		go d.pass(far, near)
	}
}

// piece is bytes, and when they may go on.
type piece struct {
	bytes []byte
	due   time.Time
}

// pass passes on what comes from one end, each piece in its own time: a long delay holds no later piece up.
func (d *Delay) pass(from, to net.Conn) {
	defer to.Close()
	pieces := make(chan piece, 1024)
	go func() {
		defer close(pieces)
		for {
			buffer := make([]byte, 16<<10)
			n, err := from.Read(buffer)
			if n > 0 {
				pieces <- piece{buffer[:n], time.Now().Add(d.half)}
			}
			if err != nil {
				return
			}
		}
	}()
	for p := range pieces {
		time.Sleep(time.Until(p.due))
		if _, err := to.Write(p.bytes); err != nil {
			from.Close()
			for range pieces {
			}
			return
		}
	}
}
