package resilience

import (
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// relay stands between the middlewares and Redis, counts what is sent to it, and holds its answers back for a while.
type relay struct {
	server *redistest.Server
	addr   string
	sent   int64 // pieces, of which each round trip has one
	delay  int64 // nanoseconds
}

func newRelay(t *testing.T, server *redistest.Server) *relay {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	r := &relay{server: server, addr: listener.Addr().String()}
	go r.listen(listener)
	return r
}

func (r *relay) listen(listener net.Listener) {
	for {
		client, err := listener.Accept()
		if err != nil {
			return
		}
		redis, err := net.Dial("tcp", r.server.Addr())
		if err != nil {
			client.Close()
			continue
		}
		go r.pass(client, redis, false)
		go r.pass(redis, client, true)
	}
}

func (r *relay) pass(from, to net.Conn, answers bool) {
	defer from.Close()
	defer to.Close()
	piece := make([]byte, 65536)
	for {
		n, err := from.Read(piece)
		if err != nil {
			return
		}
		if answers {
			time.Sleep(time.Duration(atomic.LoadInt64(&r.delay)))
		} else {
			atomic.AddInt64(&r.sent, 1)
		}
		if _, err := to.Write(piece[:n]); err != nil {
			return
		}
	}
}
