package main

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestParse_readsFlags(t *testing.T) {
	cases := []struct {
		args    []string
		env     string
		want    options
		problem string
	}{
		{nil, "", options{listen: ":8081"}, ""},
		{nil, ":9", options{listen: ":9"}, ""},
		{[]string{"-listen", ":7"}, ":9", options{listen: ":7"}, ""},
		{[]string{"-health"}, ":9", options{listen: ":9", health: true}, ""},
		{[]string{"now"}, "", options{}, `"now" is not a flag; write -listen ADDRESS or -health`},
		{[]string{"-port"}, "", options{}, "flag provided but not defined: -port"},
	}
	for _, c := range cases {
		got, err := parse(c.args, c.env, io.Discard)
		if c.problem != "" {
			require.EqualError(t, err, c.problem)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, c.want, got)
	}
}

func TestParse_helps(t *testing.T) {
	var help bytes.Buffer
	_, err := parse([]string{"-h"}, "", &help)
	require.ErrorIs(t, err, flag.ErrHelp)
	require.Contains(t, help.String(), "UPSTREAM_LISTEN")
}

func TestRun_announcesItselfAndEndsOnASignal(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		reader, writer := io.Pipe()
		ended := make(chan error, 1)
		go func() { ended <- run(options{listen: "127.0.0.1:0"}, writer) }()
		line, err := bufio.NewReader(reader).ReadString('\n')
		require.NoError(t, err)
		address, ok := strings.CutPrefix(strings.TrimSpace(line), "listening on ")
		require.True(t, ok, line)

		require.NoError(t, run(options{listen: address, health: true}, io.Discard))
		require.NoError(t, syscall.Kill(os.Getpid(), signal))
		require.NoError(t, <-ended)
		require.Error(t, run(options{listen: address, health: true}, io.Discard))
	}
}

func TestRun_refusesAnAddressThatIsTaken(t *testing.T) {
	require.ErrorIs(t, run(options{listen: start(t)}, io.Discard), syscall.EADDRINUSE)
}

func TestCheckHealth_tellsASickService(t *testing.T) {
	sick := httptest.NewServer(fixed(http.StatusInternalServerError, failed))
	defer sick.Close()
	address := sick.Listener.Addr().String()
	require.EqualError(t, checkHealth(address), address+"/health answers 500 instead of 200")
}

func TestReachable_isAnAddressToDial(t *testing.T) {
	cases := []struct{ listen, want, problem string }{
		{":8081", "127.0.0.1:8081", ""},
		{"0.0.0.0:8081", "127.0.0.1:8081", ""},
		{"[::]:8081", "[::1]:8081", ""},
		{"10.0.0.7:80", "10.0.0.7:80", ""},
		{"8081", "", `listen: "8081" is not an address; write :8081`},
		{":0", "", `listen: ":0" has no fixed port to ask; write :8081`},
	}
	for _, c := range cases {
		got, err := reachable(c.listen)
		if c.problem != "" {
			require.EqualError(t, err, c.problem)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, c.want, got)
	}
}

func TestServe_letsRequestsEnd(t *testing.T) {
	both(t, func(t *testing.T, client *http.Client) {
		address, stop := startStoppable(t, patience)
		answered := make(chan int, 1)
		go func() {
			response, err := client.Get("http://" + address + "/slow?seconds=0.2")
			if err != nil {
				answered <- 0
				return
			}
			response.Body.Close()
			answered <- response.StatusCode
		}()
		awaitInFlight(t, address)
		require.NoError(t, stop())
		require.Equal(t, http.StatusOK, <-answered)
	})
}

func TestServe_cutsRequestsAfterTheGrace(t *testing.T) {
	both(t, func(t *testing.T, client *http.Client) {
		address, stop := startStoppable(t, 50*time.Millisecond)
		answered := make(chan error, 1)
		go func() {
			response, err := client.Get("http://" + address + "/slow?seconds=30")
			if err == nil {
				response.Body.Close()
			}
			answered <- err
		}()
		awaitInFlight(t, address)
		require.EqualError(t, stop(), "cut what still ran 50ms after the signal")
		require.Error(t, <-answered)
	})
}

func TestServe_endsWithItsListener(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	require.ErrorIs(t, serve(context.Background(), listener, patience), net.ErrClosed)
}

func awaitInFlight(t *testing.T, address string) {
	t.Helper()
	running := func() bool { return statsOf(t, address).InFlight.Now == 1 }
	require.Eventually(t, running, patience, 5*time.Millisecond)
}
