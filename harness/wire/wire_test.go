package wire

import (
	"net"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// ask sends one command over the connection, and returns the answer that comes within 200 ms.
func ask(c net.Conn, command string) (string, error) {
	if _, err := c.Write([]byte(command + "\r\n")); err != nil {
		return "", err
	}
	c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	answer := make([]byte, 100)
	n, err := c.Read(answer)
	return string(answer[:n]), err
}

func requireError(t *testing.T, words string, err error) {
	t.Helper()
	if words == "" {
		require.NoError(t, err)
		return
	}
	require.ErrorContains(t, err, words)
}

func TestWire_failsAsItIsTold(t *testing.T) {
	server := redistest.Start(t)
	rows := []struct {
		name   string
		begin  func(w *Wire)
		dials  string // what goes wrong with a client's connecting while it lasts
		asks   string // and with its asking
		answer string
	}{
		{"not at all", func(w *Wire) {}, "", "", "+PONG\r\n"},
		{"slow", func(w *Wire) { w.Slow(100 * time.Millisecond) }, "", "", "+PONG\r\n"},
		{"too slow", func(w *Wire) { w.Slow(300 * time.Millisecond) }, "", "timeout", ""},
		{"held", (*Wire).Hold, "", "timeout", ""},
		{"cut", (*Wire).Cut, "", "", "+PO"},
		{"refusing", (*Wire).Refuse, "refused", "", ""},
		{"vanished", func(w *Wire) { require.NoError(t, w.Vanish()) }, "timeout", "", ""},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			w, err := New(server.Addr(), 150*time.Millisecond)
			require.NoError(t, err)
			defer w.Close()
			old, err := net.Dial("tcp", w.Addr())
			require.NoError(t, err)
			answer, err := ask(old, "PING")
			require.NoError(t, err)
			require.Equal(t, "+PONG\r\n", answer)

			row.begin(w)
			c, err := net.DialTimeout("tcp", w.Addr(), 200*time.Millisecond)
			requireError(t, row.dials, err)
			if err == nil {
				answer, err := ask(c, "PING")
				requireError(t, row.asks, err)
				require.Equal(t, row.answer, answer)
			}

			require.NoError(t, w.Heal())
			c, err = net.DialTimeout("tcp", w.Addr(), time.Second)
			require.NoError(t, err)
			answer, err = ask(c, "PING")
			require.NoError(t, err)
			require.Equal(t, "+PONG\r\n", answer)
		})
	}
}

func TestWire_tellsOfAConnectionThatIsUsedAgainAfterItFailed(t *testing.T) {
	server := redistest.Start(t)
	w, err := New(server.Addr(), 150*time.Millisecond)
	require.NoError(t, err)
	defer w.Close()
	c, err := net.Dial("tcp", w.Addr())
	require.NoError(t, err)
	w.Hold()
	_, err = ask(c, "PING")
	requireError(t, "timeout", err)
	require.Zero(t, w.Seen().Reused)
	_, err = ask(c, "ECHO other")
	requireError(t, "timeout", err)
	require.Equal(t, 1, w.Seen().Reused)
	require.NoError(t, w.Heal())
	answer, err := ask(c, "ECHO third")
	require.NoError(t, err)
	require.Regexp(t, "^.PONG", answer, "the answer to what was asked before")
}

func TestWire_countsErrorsAndConnections(t *testing.T) {
	server := redistest.Start(t)
	w, err := New(server.Addr(), time.Second)
	require.NoError(t, err)
	defer w.Close()
	for range 3 {
		c, err := net.Dial("tcp", w.Addr())
		require.NoError(t, err)
		defer c.Close()
		answer, err := ask(c, "NONSENSE")
		require.NoError(t, err)
		require.Contains(t, answer, "ERR")
	}
	seen := w.Seen()
	require.Equal(t, 3, seen.Accepted)
	require.Equal(t, 3, seen.Open)
	require.Equal(t, 3, seen.MostOpen)
	require.Equal(t, map[string]int{"ERR": 3}, seen.Errors)
	w.Refuse()
	require.Eventually(t, func() bool { return w.Seen().Open == 0 }, time.Second, time.Millisecond)
}
