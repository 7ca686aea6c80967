package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

var versionLine = regexp.MustCompile(`(?m)^Version:\s+v?(\S+)`)

// checkVersion returns an error if the file is not a Traefik of the pinned version that runs here.
func checkVersion(binary string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	absolute, err := filepath.Abs(binary)
	if err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, absolute, "version").Output()
	found := versionLine.FindSubmatch(out)
	switch {
	case ctx.Err() != nil:
		return errors.New("the binary does not tell its version within 20 s")
	case err != nil:
		return fmt.Errorf("the binary does not run here: %w", err)
	case found == nil:
		return errors.New("the binary is no Traefik: it does not tell its version")
	case string(found[1]) != version:
		return fmt.Errorf("the binary is Traefik v%s, not v%s", found[1], version)
	}
	return nil
}

// find returns the absolute path of a file, or of a program in PATH.
func find(name string) (string, error) {
	if _, err := os.Stat(name); err != nil {
		found, lookErr := exec.LookPath(name)
		if lookErr != nil {
			return "", err
		}
		name = found
	}
	return filepath.Abs(name)
}

func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

func copyFile(from, to string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	return writeFile(to, source)
}

// writeFile writes a file that can be executed.
func writeFile(to string, from io.Reader) error {
	target, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, from)
	return errors.Join(err, target.Close())
}

// The origin of a binary is kept in a file next to it, with the binary's digest: a binary that was replaced by hand has no origin.

func originFile(target string) string { return target + ".origin" }

func keepOrigin(target, binary, origin string) error {
	digest, err := digestOf(binary)
	if err != nil {
		return err
	}
	return os.WriteFile(originFile(target), []byte(origin+"\n"+digest+"\n"), 0o644)
}

func originOf(target string) string {
	const unknown = "of unknown origin"
	content, err := os.ReadFile(originFile(target))
	if err != nil {
		return unknown
	}
	origin, kept, _ := strings.Cut(strings.TrimSpace(string(content)), "\n")
	digest, err := digestOf(target)
	if err != nil || digest != kept {
		return unknown
	}
	return origin
}

func digestOf(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}
