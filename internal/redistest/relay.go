package redistest

import (
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Relay is a proxy before a server. It counts what is sent to the server, and can delay the answers. It ends with its test.
type Relay struct {
	addr  string
	sent  int64 // pieces; each round trip sends one
	delay int64 // nanoseconds
}

// NewRelay starts a relay before a server.
func NewRelay(t testing.TB, server *Server) *Relay {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	r := &Relay{addr: listener.Addr().String()}
	go serveProxy(listener, server.Addr(), r.count, r.wait)
	return r
}

// Addr returns the relay's host and port.
func (r *Relay) Addr() string { return r.addr }

// Sent returns how many round trips there were.
func (r *Relay) Sent() int64 { return atomic.LoadInt64(&r.sent) }

// Delay makes all answers to come take longer.
func (r *Relay) Delay(delay time.Duration) { atomic.StoreInt64(&r.delay, int64(delay)) }

func (r *Relay) count() { atomic.AddInt64(&r.sent, 1) }

func (r *Relay) wait() { time.Sleep(time.Duration(atomic.LoadInt64(&r.delay))) }
