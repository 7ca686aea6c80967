// Package interpreted runs the plugin's own tests once more, inside the interpreter that Traefik runs it in.
package interpreted

import (
	"go/build/constraint"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/resilient-gateway/resilience/internal/pluginfolders"
	"github.com/stretchr/testify/require"
	"github.com/traefik/yaegi/interp"
	"github.com/traefik/yaegi/stdlib"
)

const module = "github.com/resilient-gateway/resilience"

func TestInterpreted(t *testing.T) {
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	packages, err := pluginfolders.Of(root)
	require.NoError(t, err)
	goPath := bundleWithTests(t, root, packages)
	for _, name := range packages {
		t.Run(strings.ReplaceAll(filepath.Join("resilience", name), "/", "."), func(t *testing.T) {
			tests := load(t, goPath, filepath.Join(module, name))
			require.NotEmpty(t, tests, "a package without tests")
			for _, test := range tests {
				t.Run(test.name, test.run)
			}
		})
	}
}

// bundleWithTests writes the bundle as Traefik loads it, and beside each of its files the tests of that folder.
func bundleWithTests(t *testing.T, root string, packages []string) (goPath string) {
	dist := t.TempDir()
	command := exec.Command("go", "run", "./bundle", dist)
	command.Dir = root
	out, err := command.CombinedOutput()
	require.NoError(t, err, string(out))
	goPath = filepath.Join(dist, "plugins-local")
	for _, name := range packages {
		files, err := filepath.Glob(filepath.Join(root, name, "*_test.go"))
		require.NoError(t, err)
		for _, file := range files {
			content, err := os.ReadFile(file)
			require.NoError(t, err)
			if !isForInterpreter(t, string(content)) {
				continue
			}
			target := filepath.Join(goPath, "src", module, name, filepath.Base(file))
			require.NoError(t, os.WriteFile(target, content, 0o644))
		}
	}
	return goPath
}

// isForInterpreter tells what the file's //go:build line says: the interpreter itself knows only the older // +build.
func isForInterpreter(t *testing.T, content string) bool {
	line, _, _ := strings.Cut(content, "\n")
	if !constraint.IsGoBuild(line) {
		return true
	}
	expression, err := constraint.Parse(line)
	require.NoError(t, err)
	return expression.Eval(func(tag string) bool { return tag == "yaegi" })
}

type test struct {
	name string
	run  func(*testing.T)
}

// load interprets a package with its tests and returns them in the order of their names.
func load(t *testing.T, goPath, path string) []test {
	i := interp.New(interp.Options{GoPath: goPath, Env: os.Environ()})
	require.NoError(t, i.Use(stdlib.Symbols))
	require.NoError(t, i.Use(compiled))
	require.NoError(t, i.EvalTest(path))
	var tests []test
	for name, value := range i.Symbols(path)[path] {
		if run, ok := value.Interface().(func(*testing.T)); ok && strings.HasPrefix(name, "Test") {
			tests = append(tests, test{name: name, run: run})
		}
	}
	sort.Slice(tests, func(a, b int) bool { return tests[a].name < tests[b].name })
	return tests
}
