//go:build !yaegi

package resilience

import (
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Opening a pipe would wait for a writer, but New must not wait.
func TestFiles_aPipeIsNotOpened(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	done := make(chan bool)
	go func() {
		requireFileProblem(t, pipe, "is not a regular file; write the name of one")
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Fatal("it waits for a writer")
	}
}
