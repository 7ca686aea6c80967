package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// makeBundle writes a bundle and returns the folder of the plugin in it.
func makeBundle(t *testing.T, flags ...string) string {
	t.Helper()
	folder := t.TempDir()
	run(t, "..", "go", append(append([]string{"run", "./bundle"}, flags...), folder)...)
	return filepath.Join(folder, "plugins-local", "src", module)
}

func run(t *testing.T, dir, name string, arguments ...string) string {
	t.Helper()
	command := exec.Command(name, arguments...)
	command.Dir = dir
	command.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
	output, err := command.CombinedOutput()
	require.NoError(t, err, "%s %s: %s", name, arguments, output)
	return string(output)
}

func content(t *testing.T, elements ...string) string {
	t.Helper()
	read, err := os.ReadFile(filepath.Join(elements...))
	require.NoError(t, err)
	return string(read)
}

// The go command itself accepts the tree: go.mod, go.sum and vendor/modules.txt say the same.
func TestBundle_isAConsistentModule(t *testing.T) {
	bundle := makeBundle(t)
	run(t, bundle, "go", "vet", "-mod=vendor", "./...")
	run(t, bundle, "go", "build", "-mod=readonly", "./...")
	require.NotContains(t, content(t, bundle, "go.mod"), "testify", "what only tests require")

	published := t.TempDir()
	run(t, bundle, "go", "mod", "vendor", "-o", published)
	require.Equal(t, content(t, published, "modules.txt"), content(t, bundle, "vendor", "modules.txt"))
}

// What is vendored is redigo as published, but for one statement of one file, which says so at its beginning.
func TestBundle_changesOneStatementOfRedigo(t *testing.T) {
	bundle, published := makeBundle(t), t.TempDir()
	run(t, bundle, "go", "mod", "vendor", "-o", published)
	folder := filepath.Join("github.com", "gomodule", "redigo", "redis")
	files, err := filepath.Glob(filepath.Join(published, folder, "*"))
	require.NoError(t, err)
	require.Greater(t, len(files), 5)
	for _, file := range files {
		name := filepath.Base(file)
		ours, theirs := content(t, bundle, "vendor", folder, name), content(t, file)
		if name == "conn.go" {
			require.True(t, strings.HasPrefix(ours, notice), "the notice of the change")
			ours = strings.TrimPrefix(ours, notice)
			require.NotEqual(t, theirs, ours)
			ours = strings.Replace(ours, closure, construct, 1)
		}
		require.Equal(t, theirs, ours, name)
	}
	require.Equal(t, content(t, published, "github.com/gomodule/redigo/LICENSE"), content(t, bundle, "vendor/github.com/gomodule/redigo/LICENSE"))

	notices := content(t, bundle, "THIRD_PARTY.md")
	require.Contains(t, notices, "vendor/github.com/gomodule/redigo/LICENSE")
	require.Contains(t, notices, "vendor/github.com/gomodule/redigo/redis/conn.go")
	require.NotContains(t, notices, "%!")
}

// The same source gives the same bundle, and the README points to the source that it is given.
func TestBundle_holdsTheReadmeOfItsSource(t *testing.T) {
	bundle := makeBundle(t, "-ref", "0123abc")
	readme := content(t, bundle, "README.md")
	require.Contains(t, readme, "](https://github.com/resilient-gateway/resilience/blob/0123abc/docs/configuration.md)")
	require.NotContains(t, readme, "](docs/")
	require.Equal(t, readme, string(absoluteLinks([]byte(content(t, "..", "README.md")), "0123abc")))
	for _, name := range files {
		require.FileExists(t, filepath.Join(bundle, name))
	}
}

func TestAbsoluteLinks(t *testing.T) {
	const base = "https://github.com/resilient-gateway/resilience/"
	for _, row := range []struct{ line, want string }{
		{"see [a](docs/a.md).", "see [a](" + base + "blob/v/docs/a.md)."},
		{"see [a](docs/a.md#part) and [b](B.md)", "see [a](" + base + "blob/v/docs/a.md#part) and [b](" + base + "blob/v/B.md)"},
		{"![plot](docs/a.svg)", "![plot](" + base + "raw/v/docs/a.svg)"},
		{"[part](#part), [site](https://example.org/a), [mail](mailto:a@example.org)", "[part](#part), [site](https://example.org/a), [mail](mailto:a@example.org)"},
		{"```\n[a](docs/a.md)\n```\n[a](a)", "```\n[a](docs/a.md)\n```\n[a](" + base + "blob/v/a)"},
	} {
		require.Equal(t, row.want, string(absoluteLinks([]byte(row.line), "v")))
	}
}

func TestAdapt_leavesOtherFilesAlone(t *testing.T) {
	source := []byte("package redis\n")
	adapted, times, err := adapt("a.go", source)
	require.NoError(t, err)
	require.Zero(t, times)
	require.True(t, bytes.Equal(source, adapted))
}

// A release says its version; what is built of a branch says that it is none.
func TestBundle_saysItsVersion(t *testing.T) {
	const line = "const version = "
	require.Contains(t, content(t, makeBundle(t, "-version", "v1.2.3"), "version.go"), line+"\"1.2.3\"\n")
	source := []byte(content(t, "..", "version.go"))
	for _, row := range []struct{ version, want string }{
		{"", "0.0.0-dev"}, {"main", "0.0.0-dev"}, {"dev", "0.0.0-dev"}, {"1.2.3", "0.0.0-dev"}, {"v1.2.3\"", "0.0.0-dev"},
		{"v1.2.3", "1.2.3"}, {"v1.3.0-rc.1", "1.3.0-rc.1"},
	} {
		changed, err := withVersion(row.version)("version.go", source)
		require.NoError(t, err)
		require.Contains(t, string(changed), line+"\""+row.want+"\"\n", row.version)
		other, err := withVersion(row.version)("plugin.go", source)
		require.NoError(t, err)
		require.Equal(t, source, other)
	}
	_, err := withVersion("v1.2.3")("version.go", []byte("package resilience\n"))
	require.ErrorContains(t, err, "version.go does not hold the line")
}
