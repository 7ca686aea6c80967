package gateway

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// detach keeps a Ctrl-C meant for us from the process, which we end ourselves, and ends it with us if we are killed.
func detach(command *exec.Cmd) {
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// Files returns how many files and sockets the process has open.
func (p *Process) Files() (int, error) {
	open, err := os.ReadDir(fmt.Sprint("/proc/", p.PID(), "/fd"))
	return len(open), err
}
