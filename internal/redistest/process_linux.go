package redistest

import (
	"os/exec"
	"syscall"
)

// endWithUs ends the server even if the test's process is killed.
func endWithUs(command *exec.Cmd) {
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
