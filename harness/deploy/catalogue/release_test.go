// Package catalogue tests what the release workflow tags as the plugin catalogue and Traefik use it: a stand-in for the catalogue's
// analyser checks the tag's tree, and the real Traefik downloads it.
package catalogue

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	repository = "resilient-gateway/resilience"
	module     = "github.com/" + repository
	version    = "v1.2.3"
)

// root is the root of the project, for tests that change their folder.
var root, _ = filepath.Abs("../../..")

func read(t *testing.T, elements ...string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(elements...))
	require.NoError(t, err)
	return string(content)
}

func write(t *testing.T, content string, elements ...string) {
	t.Helper()
	path := filepath.Join(elements...)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
}

func command(t *testing.T, dir, name string, arguments ...string) string {
	t.Helper()
	command := exec.Command(name, arguments...)
	command.Dir = dir
	command.Env = append(os.Environ(), "TAG="+version, "GH_TOKEN=unused")
	var problems bytes.Buffer
	command.Stderr = &problems
	output, err := command.Output()
	require.NoError(t, err, "%s %s: %s%s", name, arguments, output, problems.String())
	return string(output)
}

// tagged makes the tag of a release of the working tree, as the workflow does, and returns the archive that GitHub makes of it.
func tagged(t *testing.T) []byte {
	t.Helper()
	folder := t.TempDir()
	origin, checkout := filepath.Join(folder, "origin.git"), filepath.Join(folder, "checkout")
	command(t, folder, "git", "init", "--quiet", "--bare", origin)
	command(t, folder, "git", "init", "--quiet", checkout)
	command(t, checkout, "git", "remote", "add", "origin", origin)
	command(t, checkout, "git", "-c", "user.name=test", "-c", "user.email=test@example.org", "commit", "--quiet", "--allow-empty", "-m", "source")

	const script = ".github/scripts/release"
	write(t, read(t, root, script), checkout, script)
	command(t, root, "go", "run", "./bundle", "-ref", "main", "-version", version, filepath.Join(checkout, "dist"))
	command(t, checkout, "bash", script, "tag")
	commit := command(t, origin, "git", "rev-parse", version)
	prefix := strings.ReplaceAll(repository, "/", "-") + "-" + commit[:7] + "/"
	return []byte(command(t, origin, "git", "archive", "--format=zip", "--prefix="+prefix, version))
}

// unpack writes the files of such an archive below GOPATH/src and returns the GOPATH.
func unpack(t *testing.T, archive []byte) string {
	t.Helper()
	goPath := t.TempDir()
	reader, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	require.NoError(t, err)
	for _, file := range reader.File {
		_, name, _ := strings.Cut(file.Name, "/")
		if file.FileInfo().IsDir() {
			continue
		}
		content, err := file.Open()
		require.NoError(t, err)
		text, err := io.ReadAll(content)
		require.NoError(t, err)
		write(t, string(text), goPath, "src", module, name)
	}
	return goPath
}

func sum(archive []byte) string {
	hash := sha256.Sum256(archive)
	return hex.EncodeToString(hash[:])
}
