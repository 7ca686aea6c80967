package redistest

import (
	"io"
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
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go passOn(client, address, func() {
				if atomic.AddInt64(&answers, 1)%every == 0 {
					time.Sleep(delay)
				}
			})
		}
	}()
	return listener.Addr().String()
}

// passOn forwards what a client sends, and each answer once wait has returned.
func passOn(client net.Conn, address string, wait func()) {
	defer client.Close()
	server, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	go func() {
		defer server.Close()
		io.Copy(server, client)
	}()
	piece := make([]byte, 64<<10)
	for {
		n, err := server.Read(piece)
		if err != nil {
			return
		}
		wait()
		if _, err := client.Write(piece[:n]); err != nil {
			return
		}
	}
}
