package main

import (
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestStats_countRequests(t *testing.T) {
	address := start(t)
	for _, path := range []string{"/ok", "/ok?a=1", "/fail", "/nowhere", "/health", "/stats", "/flag", "/stats/reset"} {
		get(t, address+path)
	}
	settled := func() bool { return statsOf(t, address).InFlight.Now == 0 }
	require.Eventually(t, settled, patience, 5*time.Millisecond)
	got := statsOf(t, address)
	require.Equal(t, 4, got.Requests)
	require.Equal(t, map[string]int{"/ok": 2, "/fail": 1, "/nowhere": 1}, got.ByPath)
}

func TestStats_resetKeepsWhatIsInFlight(t *testing.T) {
	s := newStats()
	for range 3 {
		s.begin("/slow")
	}
	s.end()
	require.Equal(t, counts{3, map[string]int{"/slow": 3}, inFlight{2, 3}}, s.snapshot())
	s.reset()
	require.Equal(t, counts{0, map[string]int{}, inFlight{2, 2}}, s.snapshot())
	s.end()
	s.end()
	require.Equal(t, inFlight{0, 2}, s.snapshot().InFlight)
}

func TestStats_resetOverHTTP(t *testing.T) {
	address := start(t)
	get(t, address+"/ok")
	response, text := exchange(t, client(t, 1), http.MethodPost, address+"/stats/reset", "")
	require.Equal(t, http.StatusOK, response.StatusCode)
	require.Equal(t, 0, read[counts](t, text).Requests)
	require.Contains(t, text, `"byPath":{}`)
}

func TestStats_boundThePaths(t *testing.T) {
	s := newStats()
	for i := range mostPaths + 5 {
		s.begin("/" + strconv.Itoa(i))
	}
	s.begin("/0")
	got := s.snapshot()
	require.Equal(t, mostPaths+6, got.Requests)
	require.Len(t, got.ByPath, mostPaths)
	require.Equal(t, 2, got.ByPath["/0"])
}

func TestStats_countARequestThatIsCut(t *testing.T) {
	address := start(t)
	for _, path := range []string{"/abort", "/hangup"} {
		response, err := client(t, 1).Post("http://"+address+path, "", nil)
		if err == nil {
			response.Body.Close()
		}
	}
	settled := func() bool {
		got := statsOf(t, address)
		return got.Requests == 2 && got.InFlight.Now == 0
	}
	require.Eventually(t, settled, patience, 5*time.Millisecond)
}
