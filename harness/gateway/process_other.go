//go:build !linux

package gateway

import (
	"os/exec"
	"syscall"
)

// detach keeps a Ctrl-C meant for us from the process, which we end ourselves.
func detach(command *exec.Cmd) {
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
}
