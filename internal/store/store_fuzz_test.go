//go:build !yaegi

package store

import (
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// FuzzReplies answers three calls with anything. Each call must get either integers or an error, or else the connection must
// be given up; no call may get another one's answer. Run, which makes a single call itself, must understand replies as run
// does.
func FuzzReplies(f *testing.F) {
	for _, seed := range []string{
		"+1 2\r\n+3\r\n+\r\n",
		"+1\r\n-NOSCRIPT No matching script.\r\n+3\r\n",
		"-LOADING Redis is loading the dataset in memory\r\n-ERR x\r\n-\r\n",
		"+OK\r\n:1\r\n$-1\r\n",
		"*2\r\n+1\r\n*-1\r\n*0\r\n+9223372036854775808 \r\n",
		"-NOSCRIPT No matching script.\r\n+3\r\n",
		"$40\r\n0123456789012345678901234567890123456789\r\n-NOPERM no\r\n+1\r\n", "$500000000\r\n", "*500000000\r\n",
		"+1\r\n", "+1", "+1\n", "$1\r\n1\r\n", "*x\r\n", "HTTP/1.1 400 Bad Request\r\n\r\n", "", "\n", "\r\n", "_\r\n#t\r\n,1\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, reply []byte) {
		calls := []*Call{{Script: sum}, {Script: sum}, {Script: sum}}
		c := answering(t, reply)
		begun := time.Now()
		err := run(c, calls, begun.Add(200*time.Millisecond))
		require.Less(t, time.Since(begun), 2*time.Second)
		for i, call := range calls {
			require.True(t, call.Reply == nil || call.Err == nil, "call %d", i)
			require.False(t, err == nil && call.Err == errPending, "call %d", i)
		}
		if strings.HasPrefix(string(reply), "+1\r\n+2\r\n+3\r\n") {
			for i, call := range calls {
				require.Equal(t, []int64{int64(i) + 1}, call.Reply)
			}
		}

		loading := answering(t, reply)
		loading.pendingLoads = 2
		loading.noLoad = &atomic.Bool{}
		loaded := &Call{Script: sum}
		if run(loading, []*Call{loaded}, time.Now().Add(200*time.Millisecond)) == nil {
			require.Equal(t, 0, loading.pendingLoads)
			require.False(t, loaded.Err == errPending)
		}

		if strings.Contains(string(reply), "NOSCRIPT") {
			return // whether the second round trip precedes the end of the connection is chance
		}
		alone, same := &Call{Script: sum}, &Call{Script: sum}
		s := New(Settings{}, nil)
		s.Unavailable.Store(true) // so that no failure is a change
		s.idle = []*conn{answering(t, reply)}
		s.Run([]*Call{alone}, time.Now().Add(200*time.Millisecond))
		if run(answering(t, reply), []*Call{same}, time.Now().Add(200*time.Millisecond)) != nil {
			require.ErrorIs(t, alone.Err, ErrUnavailable)
			return
		}
		require.Equal(t, same.Reply, alone.Reply)
		require.Equal(t, same.Answer, alone.Answer)
		if same.Err == nil {
			require.NoError(t, alone.Err)
		} else {
			require.ErrorContains(t, alone.Err, same.Err.Error())
		}
	})
}

// answering returns a connection that answers everything with the reply.
func answering(t *testing.T, reply []byte) *conn {
	ours, theirs := net.Pipe()
	go answer(theirs, reply)
	c := newConn(ours, time.Second)
	t.Cleanup(func() { c.redigo.Close() })
	return c
}

// answer writes the reply while it reads commands, and closes the connection.
func answer(c net.Conn, reply []byte) {
	go io.Copy(io.Discard, c)
	c.Write(reply)
	c.Close()
}
