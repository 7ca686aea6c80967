package gateway

import (
	"os/exec"
	"syscall"
)

// detach keeps a Ctrl-C meant for us from the process, which we end ourselves, and ends it with us if we are killed.
func detach(command *exec.Cmd) {
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
