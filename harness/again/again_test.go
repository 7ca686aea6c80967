// Package again tests .ci/again, which decides whether a failed run of tests counts as one.
package again

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// passes is a package whose test passes.
const passes = "package p\n\nimport \"testing\"\n\nfunc TestOK(t *testing.T) {}\n"

// failsOnce is a package of which one test fails at the first run alone.
const failsOnce = `package p

import (
	"os"
	"testing"
)

func TestOK(t *testing.T) {}

func TestOnce(t *testing.T) {
	t.Run("of two", func(t *testing.T) {
		if os.Mkdir("seen", 0o700) == nil {
			t.Fatal("the first time")
		}
	})
	t.Run("other", func(t *testing.T) {})
}
`

// main is a package with a program's end as its test.
func main(body string) string {
	return "package p\n\nimport (\n\t\"os\"\n\t\"testing\"\n)\n\nfunc TestMain(m *testing.M) {\n\t" + body + "\n}\n"
}

func test(body string) string {
	return "package p\n\nimport \"testing\"\n\nfunc TestIt(t *testing.T) {\n\t" + body + "\n}\n"
}

func TestAgain(t *testing.T) {
	again := func(name string) string { return "== " + name + " failed beside other tests, and is run again alone" }
	for _, row := range []struct {
		name     string
		depth    string
		packages map[string]string
		passes   bool
		again    []string // what is run again
	}{
		{"nothing fails", "1", map[string]string{"a": passes}, true, nil},
		{"a test fails once", "1", map[string]string{"a": failsOnce, "b": passes}, true, []string{again("TestOnce")}},
		{"a subtest fails once", "2", map[string]string{"a": failsOnce}, true, []string{again("TestOnce/of_two")}},
		{"of two packages", "1", map[string]string{"a": failsOnce, "b": failsOnce}, true, []string{again("TestOnce"), again("TestOnce")}},
		{"of four packages", "1", map[string]string{"a": failsOnce, "b": failsOnce, "c": failsOnce, "d": failsOnce}, false, nil},
		{"a test always fails", "1", map[string]string{"a": test(`t.Fatal("always")`)}, false, []string{again("TestIt")}},
		{"one fails once, another always", "1", map[string]string{"a": failsOnce, "b": test(`t.Fatal("always")`)}, false,
			[]string{again("TestOnce"), again("TestIt")}},
		{"a package cannot be built", "1", map[string]string{"a": failsOnce, "b": test("x")}, false, nil},
		{"a package cannot be read", "1", map[string]string{"a": failsOnce, "b": "package p; x"}, false, nil},
		{"a program ends early", "1", map[string]string{"a": failsOnce, "b": main("os.Exit(1)")}, false, nil},
		{"a panic", "1", map[string]string{"a": failsOnce, "b": test(`panic("it")`)}, false, nil},
		{"a data race", "1", map[string]string{"a": test("x := 0; go func() { x++ }(); x++; t.Fatal(x)")}, false, nil},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			output, err := run(t, row.depth, row.packages)
			if row.passes {
				require.NoError(t, err, output)
			} else {
				require.Error(t, err, output)
			}
			var reran []string
			for _, line := range strings.Split(output, "\n") {
				if strings.HasPrefix(line, "== ") {
					reran = append(reran, line)
				}
			}
			require.Equal(t, row.again, reran, output)
		})
	}
}

// run runs the script over packages of one module.
func run(t *testing.T, depth string, packages map[string]string) (string, error) {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), mode))
	}
	script, err := os.ReadFile("../../.ci/again")
	require.NoError(t, err)
	write(".ci/again", string(script), 0o755)
	write("module/go.mod", "module m\n\ngo 1.21\n", 0o644)
	for name, text := range packages {
		write("module/"+name+"/p_test.go", text, 0o644)
	}
	command := exec.Command(filepath.Join(dir, ".ci/again"), "module", depth, "-race", "-vet=off", "./...")
	output, err := command.CombinedOutput()
	return string(output), err
}
