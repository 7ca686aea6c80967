package main

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const patience = 5 * time.Second

// start runs a service and returns its address.
func start(t *testing.T) string {
	t.Helper()
	address, stop := startStoppable(t, 100*time.Millisecond)
	t.Cleanup(func() { stop() })
	return address
}

// startStoppable runs a service, and returns its address and what shuts it down.
func startStoppable(t *testing.T, grace time.Duration) (string, func() error) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, listener, grace) }()
	return listener.Addr().String(), func() error {
		cancel()
		return <-ended
	}
}

// client returns a client of HTTP/1.1 or of HTTP/2 without TLS.
func client(t *testing.T, version int) *http.Client {
	t.Helper()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(version == 1)
	protocols.SetUnencryptedHTTP2(version == 2)
	transport := &http.Transport{Protocols: protocols}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

// both runs the test over HTTP/1.1 and over HTTP/2.
func both(t *testing.T, test func(t *testing.T, client *http.Client)) {
	t.Helper()
	t.Run("HTTP/1.1", func(t *testing.T) { test(t, client(t, 1)) })
	t.Run("HTTP/2", func(t *testing.T) { test(t, client(t, 2)) })
}

func exchange(t *testing.T, client *http.Client, method, url, body string) (*http.Response, string) {
	t.Helper()
	request, err := http.NewRequest(method, "http://"+url, strings.NewReader(body))
	require.NoError(t, err)
	response, err := client.Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response, string(text)
}

func get(t *testing.T, url string) (*http.Response, string) {
	t.Helper()
	return exchange(t, client(t, 1), http.MethodGet, url, "")
}

func read[T any](t *testing.T, text string) (value T) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(text), &value), text)
	return value
}

func statsOf(t *testing.T, address string) counts {
	t.Helper()
	_, text := get(t, address+"/stats")
	return read[counts](t, text)
}
