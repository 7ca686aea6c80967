package gateway

import (
	"net"
	"os"
	"strconv"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCanListen_saysWhyNot(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := listener.Addr().String()
	require.EqualError(t, CanListen(address), address+" is taken by another program")
	require.NoError(t, listener.Close())
	require.NoError(t, CanListen(address))

	for _, row := range []struct {
		cause syscall.Errno
		want  string
	}{
		{syscall.EACCES, "127.0.0.1:80 may not be listened on: ports below 1024 need the rights of root here"},
		{syscall.EADDRINUSE, "127.0.0.1:80 is taken by another program"},
		{syscall.EADDRNOTAVAIL, "127.0.0.1:80 cannot be listened on: listen tcp: bind: cannot assign requested address"},
	} {
		err := &net.OpError{Op: "listen", Net: "tcp", Err: os.NewSyscallError("bind", row.cause)}
		require.EqualError(t, refusal("127.0.0.1:80", err), row.want)
	}
}

func TestFreePortFrom_passesOverThoseThatAreTaken(t *testing.T) {
	address, err := FreeAddress()
	require.NoError(t, err)
	_, text, err := net.SplitHostPort(address)
	require.NoError(t, err)
	port, err := strconv.Atoi(text)
	require.NoError(t, err)
	listener, err := net.Listen("tcp", address)
	require.NoError(t, err)
	defer listener.Close()

	got, err := FreePortFrom(port)
	require.NoError(t, err)
	require.Greater(t, got, port)
	after, err := FreePortFrom(port, got)
	require.NoError(t, err)
	require.Greater(t, after, got)
	_, err = FreePortFrom(65536)
	require.Error(t, err)
}
