package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// writeModule writes go.mod and go.sum with what the plugin itself requires. The tests' requirements are not vendored, and the go
// command refuses a vendor folder that does not match go.mod.
func writeModule(folder string) error {
	target := filepath.Join(folder, "go.mod")
	if err := copyFile("go.mod", target, nil); err != nil {
		return err
	}
	others, err := requirements(target, func(path string) bool { return path != redigo })
	if err != nil {
		return err
	}
	edit := []string{"mod", "edit"}
	for _, path := range others {
		edit = append(edit, "-droprequire="+path)
	}
	if out, err := exec.Command("go", append(edit, target)...).CombinedOutput(); err != nil {
		return fmt.Errorf("go mod edit: %s", strings.TrimSpace(string(out)))
	}
	return copyFile("go.sum", filepath.Join(folder, "go.sum"), func(_ string, sums []byte) ([]byte, error) {
		return []byte(linesWithPrefix(string(sums), redigo+" ")), nil
	})
}

// requirements returns the modules that a go.mod requires, of those that are asked for.
func requirements(file string, wanted func(path string) bool) (paths []string, err error) {
	out, err := exec.Command("go", "mod", "edit", "-json", file).Output()
	if err != nil {
		return nil, fmt.Errorf("go mod edit -json %s: %w", file, err)
	}
	var parsed struct{ Require []struct{ Path string } }
	if err := json.Unmarshal(out, &parsed); err != nil {
		return nil, err
	}
	for _, require := range parsed.Require {
		if wanted(require.Path) {
			paths = append(paths, require.Path)
		}
	}
	return paths, nil
}

func linesWithPrefix(text, prefix string) string {
	var kept strings.Builder
	for _, line := range strings.SplitAfter(text, "\n") {
		if strings.HasPrefix(line, prefix) {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

// dependency is a module in Go's module cache.
type dependency struct {
	Dir, Version, GoVersion string
}

// locate returns a required module. It downloads the module if necessary.
func locate(path string) (found dependency, err error) {
	if out, err := exec.Command("go", "mod", "download", path).CombinedOutput(); err != nil {
		return found, fmt.Errorf("go mod download %s: %s", path, strings.TrimSpace(string(out)))
	}
	out, err := exec.Command("go", "list", "-m", "-json", path).Output()
	if err != nil {
		return found, fmt.Errorf("go list -m %s: %w", path, err)
	}
	if err := json.Unmarshal(out, &found); err != nil {
		return found, err
	}
	if found.Dir == "" || found.GoVersion == "" {
		return found, fmt.Errorf("go list -m %s: no folder or no Go version in %s", path, out)
	}
	_, err = os.Stat(found.Dir)
	return found, err
}
