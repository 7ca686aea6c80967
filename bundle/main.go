// Command bundle writes the complete plugin, as Traefik loads it, below the folder that is named to it:
// plugins-local/src/github.com/resilient-gateway/resilience, with redigo vendored and adapted to the interpreter.
//
// It runs in the root of the module.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/resilient-gateway/resilience/internal/pluginfolders"
)

const (
	module = "github.com/resilient-gateway/resilience"
	redigo = "github.com/gomodule/redigo"
)

// files that belong to the plugin beside its packages.
var files = []string{".traefik.yml", "go.mod", "go.sum"}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: bundle FOLDER")
		os.Exit(2)
	}
	target := filepath.Join(os.Args[1], "plugins-local", "src", module)
	if err := write(target); err != nil {
		fmt.Fprintln(os.Stderr, "bundle:", err)
		os.Exit(1)
	}
	fmt.Println(target)
}

// write makes the tree beside its place and moves it there whole.
func write(target string) error {
	fresh := target + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}
	folders, err := pluginfolders.Of(".")
	if err != nil {
		return err
	}
	for _, folder := range folders {
		if err := copySources(folder, filepath.Join(fresh, folder), nil); err != nil {
			return err
		}
	}
	for _, file := range files {
		if err := copyFile(file, filepath.Join(fresh, file), nil); err != nil {
			return err
		}
	}
	if err := vendorRedigo(filepath.Join(fresh, "vendor")); err != nil {
		return err
	}
	if err := os.RemoveAll(target); err != nil {
		return err
	}
	return os.Rename(fresh, target)
}

// vendorRedigo takes redigo from where Go keeps its modules, in the version that go.mod names.
func vendorRedigo(target string) error {
	dir, version, err := locate(redigo)
	if err != nil {
		return err
	}
	home := filepath.Join(target, redigo)
	adaptations := 0
	change := func(name string, source []byte) ([]byte, error) {
		adapted, n, err := adapt(name, source)
		adaptations += n
		return adapted, err
	}
	if err := copySources(filepath.Join(dir, "redis"), filepath.Join(home, "redis"), change); err != nil {
		return err
	}
	if adaptations != 1 {
		return fmt.Errorf("redigo %s holds the construct %q %d times, not once: see whether the interpreter "+
			"still needs it rewritten", version, construct, adaptations)
	}
	if err := copyFile(filepath.Join(dir, "LICENSE"), filepath.Join(home, "LICENSE"), nil); err != nil {
		return err
	}
	list := fmt.Sprintf("# %s %s\n## explicit\n%s/redis\n", redigo, version, redigo)
	return os.WriteFile(filepath.Join(target, "modules.txt"), []byte(list), 0o644)
}

// locate returns the folder and the version of a required module, downloading it if need be.
func locate(path string) (dir, version string, err error) {
	if out, err := exec.Command("go", "mod", "download", path).CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("go mod download %s: %s", path, strings.TrimSpace(string(out)))
	}
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}} {{.Version}}", path).Output()
	if err != nil {
		return "", "", fmt.Errorf("go list -m %s: %w", path, err)
	}
	dir, version, found := strings.Cut(strings.TrimSpace(string(out)), " ")
	if !found || dir == "" {
		return "", "", fmt.Errorf("go list -m %s: no folder in %q", path, out)
	}
	return dir, version, nil
}

// copySources copies the Go files of one folder, but for tests.
func copySources(from, to string, change func(name string, source []byte) ([]byte, error)) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		name := entry.Name()
		if entry.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			continue
		}
		if err := copyFile(filepath.Join(from, name), filepath.Join(to, name), change); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(from, to string, change func(name string, source []byte) ([]byte, error)) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if change != nil {
		if content, err = change(filepath.Base(from), content); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, content, 0o644)
}
