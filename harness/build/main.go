// Command build puts the pinned Traefik into the file that is named to it. It takes, in this order:
//
//   - the binary that TRAEFIK names, if it is of the pinned version; otherwise it fails
//   - the binary that is already there, if it is of the pinned version
//   - the release archive for this system from the site that TRAEFIK_RELEASES names, if it has the checksum that the site names
//   - what it builds itself, which takes minutes the first time
//
// It says which of them it was. It runs in the root of the project.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
)

const (
	version  = "3.7.9"
	official = "https://github.com/traefik/traefik/releases/download"
	noSite   = "none" // as TRAEFIK_RELEASES: only a build will do
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: build FILE")
		os.Exit(2)
	}
	p := provider{
		target:  os.Args[1],
		given:   os.Getenv("TRAEFIK"),
		release: &release{site: official, system: runtime.GOOS, machine: machine(), limits: usual},
		compile: compile,
		out:     os.Stdout,
	}
	if site := os.Getenv("TRAEFIK_RELEASES"); site != "" {
		p.release.site = site
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := p.provide(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "make traefik:", err)
		os.Exit(1)
	}
}

// provider puts a Traefik of the pinned version into a file.
type provider struct {
	target  string
	given   string // the user's own binary; "": none
	release *release
	compile func(ctx context.Context, target string, out io.Writer) error
	out     io.Writer
}

func (p *provider) provide(ctx context.Context) error {
	folder := filepath.Dir(p.target)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp(folder, "traefik-") // on the same file system, so that a rename is enough
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	fresh := filepath.Join(work, filepath.Base(p.target))
	if p.given != "" {
		return p.takeGiven(fresh)
	}
	if _, err := os.Stat(p.target); err == nil {
		problem := checkVersion(p.target)
		if problem == nil {
			p.say("%s", originOf(p.target))
			return nil
		}
		p.say("%s is replaced, because %v", p.target, problem)
	}
	why := p.takeRelease(ctx, fresh)
	if why == nil || ctx.Err() != nil {
		return why
	}
	p.say("is built now, because %v; about 6 minutes the first time on 2 cores, seconds later", why)
	if err := p.compile(ctx, fresh, p.out); err != nil {
		return err
	}
	return p.install(fresh, "built here with "+runtime.Version())
}

// takeGiven copies the user's own binary.
func (p *provider) takeGiven(fresh string) error {
	binary, err := find(p.given)
	if err != nil {
		return fmt.Errorf("TRAEFIK: %w; name the file of a Traefik v%s, or unset the variable", err, version)
	}
	if err := checkVersion(binary); err != nil {
		return fmt.Errorf("TRAEFIK: %s: %w; name the file of a Traefik v%s, or unset the variable", binary, err, version)
	}
	if sameFile(binary, p.target) {
		p.say("%s", originOf(p.target))
		return nil
	}
	if err := copyFile(binary, fresh); err != nil {
		return err
	}
	return p.install(fresh, "copied from "+binary+", as TRAEFIK says")
}

// takeRelease installs the binary of the release, or returns why it cannot.
func (p *provider) takeRelease(ctx context.Context, fresh string) error {
	if p.release.site == noSite {
		return fmt.Errorf("TRAEFIK_RELEASES is %s", noSite)
	}
	url, err := p.release.fetch(ctx, fresh)
	if err != nil {
		return err
	}
	if err := p.install(fresh, "the release, "+url); err != nil {
		return fmt.Errorf("%s is no use: %w", url, err)
	}
	return nil
}

// install checks a binary, keeps where it comes from, and renames it to the target.
func (p *provider) install(fresh, origin string) error {
	if err := checkVersion(fresh); err != nil {
		return err
	}
	if err := keepOrigin(p.target, fresh, origin); err != nil {
		return err
	}
	if err := os.Rename(fresh, p.target); err != nil {
		return err
	}
	p.say("%s", origin)
	return nil
}

func (p *provider) say(format string, arguments ...any) {
	fmt.Fprintf(p.out, "Traefik v%s: %s\n", version, fmt.Sprintf(format, arguments...))
}
