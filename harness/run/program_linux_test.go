package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestProgram_aPortBelow1024 runs the program without root's rights. Where the system asks for none, the port is no problem.
func TestProgram_aPortBelow1024(t *testing.T) {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	require.NoError(t, err)
	lowest, err := strconv.Atoi(strings.TrimSpace(string(text)))
	require.NoError(t, err)

	program := build(t)
	for folder := filepath.Dir(program); folder != os.TempDir() && folder != "/"; folder = filepath.Dir(folder) {
		require.NoError(t, os.Chmod(folder, 0o755))
	}
	command := exec.Command(program, "check")
	command.Env = append(os.Environ(), "PORT=1", "API_PORT="+portText(t))
	if os.Geteuid() == 0 {
		const nobody = 65534
		command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	out, err := command.CombinedOutput()
	if lowest <= 1 {
		require.NoError(t, err, string(out))
		return
	}
	require.Equal(t, 1, exitCode(err), string(out))
	require.Contains(t, string(out), "make run: PORT: 127.0.0.1:1 may not be listened on: ports below 1024 need the rights of root here; write: PORT=")
}
