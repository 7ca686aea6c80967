package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSeconds_readsAWait(t *testing.T) {
	cases := []struct {
		query string
		want  time.Duration
	}{
		{"", 2 * time.Second},
		{"?seconds=", 2 * time.Second},
		{"?seconds=0", 0},
		{"?seconds=0.25", 250 * time.Millisecond},
		{"?seconds=60", longest},
		{"?seconds=61", longest},
		{"?seconds=1e300", longest},
	}
	for _, c := range cases {
		got, err := seconds(httptest.NewRequest(http.MethodGet, "/slow"+c.query, nil), "seconds", 2)
		require.NoError(t, err, c.query)
		require.Equal(t, c.want, got, c.query)
	}
}

func TestSlow_stopsWhenTheClientGoes(t *testing.T) {
	address := start(t)
	cases := []struct{ method, path, body string }{
		{http.MethodGet, "/slow?seconds=30", ""},
		{http.MethodPost, "/slow?seconds=30", strings.Repeat("x", 1000)},
		{http.MethodGet, "/status/500?seconds=30", ""},
		{http.MethodPost, "/sse?interval=30", strings.Repeat("x", 1000)},
	}
	both(t, func(t *testing.T, client *http.Client) {
		for _, c := range cases {
			leave(t, client, c.method, address+c.path, c.body)
			gone := func() bool { return statsOf(t, address).InFlight.Now == 0 }
			require.Eventually(t, gone, patience, 5*time.Millisecond, c.path)
		}
	})
}

// leave sends a request and goes away shortly after.
func leave(t *testing.T, client *http.Client, method, url, body string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, "http://"+url, strings.NewReader(body))
	require.NoError(t, err)
	response, err := client.Do(request)
	if err != nil {
		require.ErrorIs(t, err, context.DeadlineExceeded)
		return
	}
	<-ctx.Done()
	response.Body.Close()
}

func TestStatus_namesTheTypeOfTheBody(t *testing.T) {
	address := start(t)
	cases := []struct{ query, body, kind string }{
		{"?body=down", "down", "text/plain; charset=utf-8"},
		{"?body=%5B1%5D", "[1]", "application/json"},
		{"?body=", "", "text/plain; charset=utf-8"},
	}
	for _, c := range cases {
		response, body := get(t, address+"/status/502"+c.query)
		require.Equal(t, http.StatusBadGateway, response.StatusCode)
		require.Equal(t, c.body, body)
		require.Equal(t, c.kind, response.Header.Get("Content-Type"))
	}
}
