//go:build !linux

package gateway

import (
	"bytes"
	"fmt"
	"os/exec"
	"syscall"
)

// detach keeps a Ctrl-C meant for us from the process, which we end ourselves.
func detach(command *exec.Cmd) {
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
}

// Files returns how many files and sockets the process has open.
func (p *Process) Files() (int, error) {
	list, err := exec.Command("lsof", "-b", "-w", "-F", "f", "-p", fmt.Sprint(p.PID())).Output()
	return bytes.Count(list, []byte("\n")), err
}
