package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// build returns the program of this package.
func build(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "run")
	out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput()
	require.NoError(t, err, string(out))
	return program
}

func TestProgram_check(t *testing.T) {
	program := build(t)
	fine := "PORT=" + portText(t) + " API_PORT=" + portText(t)
	for _, row := range []struct {
		name, env string
		code      int
		said      string
	}{
		{"nothing is wrong", fine, 0, ""},
		{"a URL without scheme", fine + " UPSTREAM_URL=shop", 1, "make run: UPSTREAM_URL: \"shop\" is not a URL with a scheme and a host; " +
			"write one such as http://localhost:3000 or https://shop.internal/base\n"},
		{"a unit too much", fine + " CIRCUIT_BREAKER_RESET_TIMEOUT_SECONDS=30s", 1,
			"make run: CIRCUIT_BREAKER_RESET_TIMEOUT_SECONDS: \"30s\" is not a number of seconds, without a unit; write 30\n"},
	} {
		t.Run(row.name, func(t *testing.T) {
			command := exec.Command(program, "check")
			command.Env = append(os.Environ(), strings.Fields(row.env)...)
			out, err := command.CombinedOutput()
			require.Equal(t, row.said, string(out))
			require.Equal(t, row.code, exitCode(err))
		})
	}
}

func exitCode(err error) int {
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		return ended.ExitCode()
	}
	return 0
}
