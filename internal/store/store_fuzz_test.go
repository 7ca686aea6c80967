//go:build !yaegi

package store

import (
	"bufio"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"
	"github.com/stretchr/testify/require"
)

// FuzzReplies has three calls answered with anything. Each call must have either an answer of integers or an error, or else
// the connection must be given up; and none may have the answer of another.
func FuzzReplies(f *testing.F) {
	for _, seed := range []string{
		"$3\r\n1 2\r\n$1\r\n3\r\n$0\r\n\r\n",
		"$1\r\n1\r\n-NOSCRIPT No matching script.\r\n$1\r\n3\r\n",
		"-LOADING Redis is loading the dataset in memory\r\n-ERR x\r\n-\r\n",
		"+OK\r\n:1\r\n$-1\r\n",
		"*2\r\n$1\r\n1\r\n*-1\r\n*0\r\n$20\r\n9223372036854775808 \r\n",
		"$1\r\n1\r\n", "$5\r\n1", "$-2\r\n", "*x\r\n", "HTTP/1.1 400 Bad Request\r\n\r\n", "", "\r\n", "_\r\n#t\r\n,1\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, reply []byte) {
		ours, theirs := net.Pipe()
		go answer(theirs, reply)
		c := &conn{raw: ours, redis: redis.NewConn(ours, time.Second, time.Second), reader: bufio.NewReader(ours), fresh: true}
		defer c.redis.Close()
		calls := []*Call{{Script: sum}, {Script: sum}, {Script: sum}}
		begun := time.Now()
		err := run(c, calls, begun.Add(200*time.Millisecond))
		require.Less(t, time.Since(begun), 2*time.Second)
		for i, call := range calls {
			require.True(t, call.Reply == nil || call.Err == nil, "call %d", i)
			require.False(t, err == nil && call.Err == errPending, "call %d", i)
		}
		if strings.HasPrefix(string(reply), "$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n") {
			for i, call := range calls {
				require.Equal(t, []int64{int64(i) + 1}, call.Reply)
			}
		}
	})
}

// answer writes the reply while it reads what is asked, and hangs up.
func answer(c net.Conn, reply []byte) {
	go io.Copy(io.Discard, c)
	c.Write(reply)
	c.Close()
}
