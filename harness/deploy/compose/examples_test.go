package compose

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/harness/walkthrough"
	"github.com/stretchr/testify/require"
)

// TestExamples starts each example as its README says, and types the rest of the README.
func TestExamples(t *testing.T) {
	examples, err := walkthrough.Folders(project)
	require.NoError(t, err)
	require.NotEmpty(t, examples.Compose)
	for _, folder := range examples.Compose {
		t.Run(filepath.Base(folder), func(t *testing.T) {
			t.Parallel()
			x := newExample(t, folder)
			x.must(t, "docker", "compose", "--file", x.file, "config", "--quiet")
			steps, err := walkthrough.Read(filepath.Join(folder, "README.md"))
			require.NoError(t, err)
			// Redis has 100 ms for its answers, as by default. On a machine that is busy, a gateway now and then limits by itself.
			const tries = 3
			for range tries {
				x.start(steps[0])
				if err = x.follow(steps[1:]); err == nil {
					return
				}
				t.Log(err)
			}
			require.NoError(t, err, "after %d tries", tries)
		})
	}
}

// example is a stack that is started, tried and stopped as its README says.
type example struct {
	*stack
	folder string
	second string // port of its second gateway
	stderr string // file that the last command wrote its errors to
}

func newExample(t *testing.T, folder string) *example {
	t.Helper()
	relative, err := filepath.Rel(project, filepath.Join(folder, "docker-compose.yml"))
	require.NoError(t, err)
	x := &example{folder: folder, second: freePort(t), stderr: filepath.Join(t.TempDir(), "stderr")}
	x.stack = newStack(t, relative, "SECOND_PORT="+x.second)
	if secrets := filepath.Join(folder, "secrets"); !exists(secrets) {
		t.Cleanup(func() { os.RemoveAll(secrets) })
	}
	return x
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (x *example) start(step walkthrough.Step) {
	x.t.Helper()
	require.True(x.t, walkthrough.Starts(step.Command), step.Command)
	require.NoError(x.t, x.match(step))
	x.requireReplicated()
}

// follow types one command after another, the last of which stops the example, and returns an error if one of them prints something
// else than the README says.
func (x *example) follow(steps []walkthrough.Step) error {
	x.t.Helper()
	for _, step := range steps {
		if err := x.match(step); err != nil {
			x.compose("down", "--timeout", "5")
			return err
		}
	}
	for _, kind := range []string{"container", "volume", "network"} {
		left := x.must(x.t, "docker", kind, "ls", "--quiet", "--filter", "label=com.docker.compose.project="+x.name)
		require.Empty(x.t, left, "a %s that is left after the last command", kind)
	}
	return nil
}

// match types the command. What Redis holds may follow a moment after the answer.
func (x *example) match(step walkthrough.Step) error {
	x.t.Helper()
	inContainer := strings.HasPrefix(step.Command, "docker ")
	command := step.Command
	if !inContainer {
		_, port, _ := strings.Cut(x.web, ":")
		command = regexp.MustCompile(`\b5000\b`).ReplaceAllString(command, port)
		command = regexp.MustCompile(`\b5001\b`).ReplaceAllString(command, x.second)
	}
	deadline := time.Now().Add(3 * time.Second)
	for {
		output, code := x.run(x.t, "bash", "-c", "cd "+x.folder+"; set -o pipefail; exec 2>"+x.stderr+"; "+command)
		var err error
		switch {
		case code != 0:
			said, _ := os.ReadFile(x.stderr)
			err = fmt.Errorf("line %d: %s: %s%s", step.Line, command, output, said)
		case walkthrough.Starts(step.Command), walkthrough.Stops(step.Command):
		default:
			err = step.Match(output)
		}
		if err == nil || !inContainer || time.Now().After(deadline) {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// TestExamples_images: an example runs the images that the stacks run.
func TestExamples_images(t *testing.T) {
	settings := readEnvFile(filepath.Join(project, ".env.example"))
	files, err := filepath.Glob(filepath.Join(project, "examples", "*", "docker-compose.yml"))
	require.NoError(t, err)
	var problems []error
	for _, file := range append(files, filepath.Join(project, "examples", "services.yml")) {
		content, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, image := range regexp.MustCompile(`(?m)^ *image: (\S+)`).FindAllStringSubmatch(string(content), -1) {
			found := regexp.MustCompile(`^\$\{([A-Z_]+_IMAGE):-(.+)\}$`).FindStringSubmatch(image[1])
			isBuilt := strings.HasPrefix(image[1], "resilience-") && strings.HasSuffix(image[1], ":local")
			if !isBuilt && (found == nil || settings[found[1]] != found[2]) {
				problems = append(problems, fmt.Errorf("%s: %s is not what .env.example names", file, image[1]))
			}
		}
	}
	require.NoError(t, errors.Join(problems...))
}
