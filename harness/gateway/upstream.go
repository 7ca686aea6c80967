package gateway

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// StartUpstream starts the dummy upstream on the given host and port and waits until it answers.
func StartUpstream(root, address string, log io.Writer) (*Process, error) {
	binary, err := filepath.Abs(filepath.Join(root, "dist", "bin", "upstream"))
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(binary); err != nil {
		return nil, fmt.Errorf("%s is missing; run: make upstream", binary)
	}
	process, err := Start("the upstream", exec.Command(binary, "-listen", address), log)
	if err != nil {
		return nil, err
	}
	return process, process.await(answers("http://"+address+"/health"), 10*time.Second)
}
