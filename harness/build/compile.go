package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// compile builds Traefik, in the module of this program, which requires it.
func compile(ctx context.Context, target string, out io.Writer) error {
	target, err := filepath.Abs(target)
	if err != nil {
		return err
	}
	goCommand := os.Getenv("GO")
	if goCommand == "" {
		goCommand = "go"
	}
	command := exec.CommandContext(ctx, goCommand, "build", "-v", "-trimpath",
		"-ldflags=-s -w -X github.com/traefik/traefik/v3/pkg/version.Version="+version, "-o", target,
		"github.com/traefik/traefik/v3/cmd/traefik")
	command.Dir = "harness"
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	pipe, err := command.StderrPipe()
	if err != nil {
		return err
	}
	if err := command.Start(); err != nil {
		return err
	}
	p := &progress{out: out, every: 10 * time.Second, last: time.Now()}
	for lines := bufio.NewScanner(pipe); lines.Scan(); {
		p.add(lines.Text())
	}
	if err := command.Wait(); err != nil {
		return fmt.Errorf("%s build: %w\n%s", goCommand, err, strings.Join(p.others, "\n"))
	}
	return nil
}

// progress says now and then how far a build is. go build -v names each module that it fetches and each package that it compiles.
type progress struct {
	fetched, compiled int
	others            []string // lines that are neither
	out               io.Writer
	every             time.Duration
	last              time.Time
}

func (p *progress) add(line string) {
	switch {
	case strings.HasPrefix(line, "go: downloading "):
		p.fetched++
	case !strings.ContainsAny(line, " \t:"):
		p.compiled++
	default:
		p.others = append(p.others, line)
	}
	if time.Since(p.last) >= p.every {
		p.last = time.Now()
		fmt.Fprintf(p.out, "  %d modules fetched, %d of about 2800 packages compiled\n", p.fetched, p.compiled)
	}
}
