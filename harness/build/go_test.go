package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// .ci/go is asked by make before anything else.
func TestGo_isNamedIfItIsMissingOrTooOld(t *testing.T) {
	for _, row := range []struct {
		name, script string // of go; "": there is none
		problem      string
	}{
		{"the version of go.mod", "echo go1.26.0", ""},
		{"a later patch", "echo go1.26.8", ""},
		{"a later version", "echo go1.27rc1", ""},
		{"a version built by hand", "echo 'devel go1.28-0a1b2c3'", ""},
		{"fetched by go itself", "echo 'go: downloading go1.26.0 (linux/amd64)' >&2; echo go1.26.0", ""},
		{"too old", "echo go1.25.9", " is of version go1.25.9"},
		{"much too old", "echo go1.9", " is of version go1.9"},
		{"it may not fetch another", "echo 'go: go.mod requires go >= 1.26.0 (running go 1.24.1; GOTOOLCHAIN=local)' >&2; exit 1",
			" cannot be used: go: go.mod requires go >= 1.26.0 (running go 1.24.1; GOTOOLCHAIN=local)"},
		{"it is missing", "", " is missing"},
	} {
		t.Run(row.name, func(t *testing.T) {
			goCommand := filepath.Join(t.TempDir(), "go")
			if row.script != "" {
				require.NoError(t, os.WriteFile(goCommand, []byte("#!/bin/sh\n"+row.script+"\n"), 0o755))
			}
			command := exec.Command("make", "--no-print-directory", "go", "GO="+goCommand)
			command.Dir = "../.."
			command.Env = append(os.Environ(), "MAKEFLAGS=", "LC_ALL=C")
			out, err := command.CombinedOutput()
			if row.problem == "" {
				require.NoError(t, err, "%s", out)
				require.Empty(t, string(out))
				return
			}
			require.Error(t, err)
			require.Regexp(t, `^\Q`+goCommand+row.problem+`\E; install Go 1\.26\.0 or later from https://go\.dev/dl, or name another with GO=<path>\n`, string(out))
		})
	}
}
