package redistest

import (
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Slowly starts a proxy before a server and returns the proxy's address. It delays every n-th answer, where n is every. It
// ends with the test.
func Slowly(t testing.TB, address string, every int64, delay time.Duration) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:"+FreePort(t))
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	var answers int64
	go serveProxy(listener, address, func() {}, func() {
		if atomic.AddInt64(&answers, 1)%every == 0 {
			time.Sleep(delay)
		}
	})
	return listener.Addr().String()
}

// serveProxy connects each client with the server at an address until the listener is closed. It calls sent before it passes on each piece from a
// client, and answered before each piece from the server.
func serveProxy(listener net.Listener, address string, sent, answered func()) {
	for {
		client, err := listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", address)
		if err != nil {
			client.Close()
			continue
		}
		go pass(client, server, sent)
		go pass(server, client, answered)
	}
}

func pass(from, to net.Conn, before func()) {
	defer from.Close()
	defer to.Close()
	piece := make([]byte, 64<<10)
	for {
		n, err := from.Read(piece)
		if err != nil {
			return
		}
		before()
		if _, err := to.Write(piece[:n]); err != nil {
			return
		}
	}
}
