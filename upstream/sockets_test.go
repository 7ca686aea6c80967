package main

import (
	"bytes"
	"context"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

func dial(t *testing.T, url string) (context.Context, *websocket.Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	options := &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {"http://elsewhere.example"}}}
	socket, _, err := websocket.Dial(ctx, "ws://"+url, options)
	require.NoError(t, err)
	t.Cleanup(func() { socket.CloseNow() })
	socket.SetReadLimit(-1)
	return ctx, socket
}

func TestSockets_echoMessages(t *testing.T) {
	ctx, socket := dial(t, start(t)+"/ws")
	cases := []struct {
		kind    websocket.MessageType
		message []byte
	}{
		{websocket.MessageText, []byte("hello")},
		{websocket.MessageBinary, []byte{0, 255, 1}},
		{websocket.MessageText, []byte{}},
		{websocket.MessageBinary, bytes.Repeat([]byte{7}, 1<<20)},
	}
	for _, c := range cases {
		require.NoError(t, socket.Write(ctx, c.kind, c.message))
		kind, message, err := socket.Read(ctx)
		require.NoError(t, err)
		require.Equal(t, c.kind, kind)
		require.True(t, bytes.Equal(c.message, message))
	}
	require.NoError(t, socket.Close(websocket.StatusNormalClosure, ""))
}

func TestSockets_closeAtOnceWithACode(t *testing.T) {
	address := start(t)
	for _, code := range []int{1000, 1001, 1011, 1014, 3000, 4999} {
		ctx, socket := dial(t, address+"/ws?close="+strconv.Itoa(code))
		_, _, err := socket.Read(ctx)
		require.Equal(t, websocket.StatusCode(code), websocket.CloseStatus(err))
	}
}

func TestSockets_countAsInFlightUntilTheyClose(t *testing.T) {
	address := start(t)
	_, socket := dial(t, address+"/ws")
	require.Equal(t, 1, statsOf(t, address).InFlight.Now)
	require.NoError(t, socket.Close(websocket.StatusNormalClosure, ""))
	gone := func() bool { return statsOf(t, address).InFlight.Now == 0 }
	require.Eventually(t, gone, patience, 5*time.Millisecond)
}

func TestSockets_goAwayAtShutdown(t *testing.T) {
	address, stop := startStoppable(t, patience)
	ctx, socket := dial(t, address+"/ws")
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	_, _, err := socket.Read(ctx)
	require.Equal(t, websocket.StatusGoingAway, websocket.CloseStatus(err))
	require.NoError(t, <-stopped)
}

func TestSockets_needAnUpgrade(t *testing.T) {
	response, _ := get(t, start(t)+"/ws")
	require.Equal(t, http.StatusUpgradeRequired, response.StatusCode)
}
