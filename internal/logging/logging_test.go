package logging

import (
	"encoding/json"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// printed returns what is logged meanwhile.
func printed(t *testing.T, do func()) string {
	reader, writer, err := os.Pipe()
	require.NoError(t, err)
	defer SetOutput(SetOutput(writer))
	do()
	require.NoError(t, writer.Close())
	text, err := io.ReadAll(reader)
	require.NoError(t, err)
	return string(text)
}

func TestLogger_printsALineOfJSONOutsideOfTraefik(t *testing.T) {
	l := New("gateway@file")
	for _, row := range []struct {
		name  string
		write func()
		want  map[string]string
	}{
		{"info", func() { l.Info("on") },
			map[string]string{"level": "info", "middleware": "gateway@file", "message": "on"}},
		{"warn, with fields", func() { l.Warn("circuit open", "from", "closed", "to", "open") },
			map[string]string{"level": "warn", "middleware": "gateway@file", "message": "circuit open", "from": "closed", "to": "open"}},
		{"debug", func() { l.Debug("refused", "client", "ip:192.0.2.1") },
			map[string]string{"level": "debug", "middleware": "gateway@file", "message": "refused", "client": "ip:192.0.2.1"}},
		{"what would break a line", func() { l.Info("a\nb", "x", "\r\n\"{}\x00") },
			map[string]string{"level": "info", "middleware": "gateway@file", "message": "a\nb", "x": "\r\n\"{}\x00"}},
		{"a field without a value", func() { l.Info("on", "x", "1", "y") },
			map[string]string{"level": "info", "middleware": "gateway@file", "message": "on", "x": "1"}},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			text := printed(t, row.write)

			require.Equal(t, 1, strings.Count(text, "\n"))
			require.True(t, strings.HasSuffix(text, "\n"))
			line := map[string]string{}
			require.NoError(t, json.Unmarshal([]byte(text), &line))
			at, err := time.Parse(time.RFC3339, line["time"])
			require.NoError(t, err)
			require.True(t, time.Since(at) < time.Minute)
			delete(line, "time")
			require.Equal(t, row.want, line)
		})
	}
}

func TestLogger_doesNotDebugOutsideOfTraefik(t *testing.T) {
	require.False(t, New("gateway").DebugEnabled())
}

func TestLogger_survivesAnOutputThatIsGone(t *testing.T) {
	reader, writer, err := os.Pipe()
	require.NoError(t, err)
	require.NoError(t, reader.Close())
	require.NoError(t, writer.Close())
	defer SetOutput(SetOutput(writer))

	New("gateway").Warn("nobody reads this")
}
