// Command build builds the pinned Traefik into the file that is named to it, and says how far it is: the first time, it
// takes minutes.
package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	version = "3.7.9"
	pkg     = "github.com/traefik/traefik/v3/cmd/traefik"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: build FILE")
		os.Exit(2)
	}
	if err := build(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "build:", err)
		os.Exit(1)
	}
}

// build leaves a binary of the right version alone.
func build(target string) error {
	if out, err := exec.Command(target, "version").Output(); err == nil && strings.Contains(string(out), version) {
		return nil
	}
	fmt.Printf("building Traefik v%s: about 6 minutes the first time on 2 cores, seconds later\n", version)
	begun := time.Now()
	target, err := filepath.Abs(target)
	if err != nil {
		return err
	}
	command := exec.Command("go", "build", "-v", "-trimpath",
		"-ldflags=-s -w -X github.com/traefik/traefik/v3/pkg/version.Version="+version, "-o", target, pkg)
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	if err := run(command); err != nil {
		return err
	}
	fmt.Printf("Traefik v%s is built, in %s\n", version, time.Since(begun).Round(time.Second))
	return nil
}

// run runs go build -v, which names each module it fetches and each package it compiles, and passes its errors on.
func run(command *exec.Cmd) error {
	pipe, err := command.StderrPipe()
	if err != nil {
		return err
	}
	if err := command.Start(); err != nil {
		return err
	}
	p := &progress{every: 10 * time.Second, last: time.Now()}
	lines := bufio.NewScanner(pipe)
	for lines.Scan() {
		p.add(lines.Text())
	}
	err = command.Wait()
	if err != nil {
		fmt.Fprintln(os.Stderr, strings.Join(p.others, "\n"))
	}
	return err
}

// progress says now and then how far a build is.
type progress struct {
	fetched, compiled int
	others            []string // lines that are neither
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
		fmt.Printf("  %d modules fetched, %d of about 2800 packages compiled\n", p.fetched, p.compiled)
	}
}
