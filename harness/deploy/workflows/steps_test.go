package workflows

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

const (
	gatewayDigest  = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
	upstreamDigest = "sha256:2222222222222222222222222222222222222222222222222222222222222222"
	gatewayImage   = "docker.io/acme/resilience-gateway@" + gatewayDigest
	upstreamImage  = "docker.io/acme/resilience-upstream@" + upstreamDigest
)

// tried are the steps that are run here, in this order in one copy of the source.
var tried = []struct {
	step string
	try  func(*testing.T, *desk)
}{
	{"ci.yml coverage: Install Redis", tryRedis},
	{"ci.yml coverage: Test with coverage", tryCoverage},
	{"image.yml image: Look for images of this source", trySource},
	{"image.yml image: Name the images", tryNames},
	{"deploy.yml deploy-staging: Deploy, smoke-test, and go back if it does not work", tryDeploy},
	{"deploy.yml deploy-production: Deploy, smoke-test, and go back if it does not work", tryDeploy},
	{"release.yml version: Check the version", tryVersion},
	{"release.yml release: Make the bundle", tryBundle},
	{"release.yml release: Check the bundle", tryCheckBundle},
	{"release.yml release: Pack the bundle", tryPack},
	{"release.yml release: Render the Kubernetes objects", tryRender},
	{"release.yml release: Name the images in the Kubernetes objects", tryNameInObjects},
	{"release.yml release: Sum up the files", trySums},
	{"release.yml release: Tag the bundle", tryTag},
	{"release.yml release: Release", tryRelease},
}

// exceptions are the steps that are not run here, with the reason. Each is one target of the Makefile and nothing else.
var exceptions = map[string]string{
	"ci.yml lint: Lint the code":                                "make test begins with this target",
	"ci.yml lint: Lint and try the workflows":                   "this test is what the target runs",
	"ci.yml traefik: Test compiled, interpreted and end to end": "takes many minutes; make ci begins with this target",
	"ci.yml traefik: Load a release's tag from the catalogue":   "needs the real Traefik; make ci runs this target",
	"ci.yml compose: Test both stacks and deploy.sh":            "takes many minutes; make ci runs this target",
	"ci.yml kubernetes: Test the objects on an API server":      "takes many minutes; make ci runs this target",
}

// found is a step of a workflow with what is around it.
type found struct {
	step
	env []string // names of the variables that the workflow, the job and the step declare
}

func runSteps(t *testing.T) map[string]found {
	t.Helper()
	steps := map[string]found{}
	for name, text := range readTree(t).texts {
		parsed, err := parse(text)
		require.NoError(t, err)
		for id, job := range parsed.Jobs {
			for _, step := range job.Steps {
				if step.Run == "" {
					continue
				}
				declared := maps.Clone(parsed.Env)
				if declared == nil {
					declared = map[string]string{}
				}
				maps.Copy(declared, job.Env)
				maps.Copy(declared, step.Env)
				steps[name+" "+id+": "+step.Name] = found{step, slices.Sorted(maps.Keys(declared))}
			}
		}
	}
	return steps
}

// coverage says which steps are in no table, or twice, and which entries match no step.
func coverage(steps []string, tables ...[]string) []string {
	var problems []string
	entries := slices.Concat(tables...)
	slices.Sort(entries)
	for i, entry := range entries {
		if !slices.Contains(steps, entry) {
			problems = append(problems, entry+" is no step")
		}
		if i > 0 && entries[i-1] == entry {
			problems = append(problems, entry+" stands twice")
		}
	}
	for _, step := range steps {
		if !slices.Contains(entries, step) {
			problems = append(problems, step+" is neither run nor excepted")
		}
	}
	return problems
}

func TestSteps_areRunOrExcepted(t *testing.T) {
	steps := runSteps(t)
	keys := slices.Sorted(maps.Keys(steps))
	var run []string
	for _, entry := range tried {
		run = append(run, entry.step)
	}
	excepted := slices.Collect(maps.Keys(exceptions))
	require.Empty(t, coverage(keys, run, excepted))

	require.Equal(t, []string{run[0] + " is neither run nor excepted"}, coverage(keys, run[1:], excepted))
	require.Equal(t, []string{"ci.yml lint: Nothing is no step"}, coverage(keys, run, excepted, []string{"ci.yml lint: Nothing"}))
	require.Equal(t, []string{run[0] + " stands twice"}, coverage(keys, run, excepted, run[:1]))

	makefile := read(t, filepath.Join(root(t), "Makefile"))
	for key, reason := range exceptions {
		require.NotEmpty(t, reason, key)
		target, isMake := strings.CutPrefix(strings.TrimSpace(steps[key].Run), "make ")
		require.True(t, isMake, "%s runs more than make: %s", key, steps[key].Run)
		require.Regexp(t, `(?m)^`+regexp.QuoteMeta(target)+`:`, makefile, key)
	}
}

func TestSteps_run(t *testing.T) {
	steps := runSteps(t)
	source := copySource(t)
	for _, entry := range tried {
		passed := t.Run(entry.step, func(t *testing.T) {
			entry.try(t, &desk{found: steps[entry.step], dir: source, fakes: t.TempDir()})
		})
		if !passed {
			t.FailNow() // the next may need what this one makes
		}
	}
}

// copySource makes a checkout of what is in the working tree, as one commit.
func copySource(t *testing.T) string {
	t.Helper()
	target := t.TempDir()
	listed := command(t, root(t), "git", "ls-files", "-z", "-co", "--exclude-standard")
	for _, name := range strings.Split(strings.Trim(listed, "\x00"), "\x00") {
		from := filepath.Join(root(t), name)
		info, err := os.Lstat(from)
		if errors.Is(err, os.ErrNotExist) {
			continue // deleted, and not yet committed
		}
		require.NoError(t, err)
		if !info.Mode().IsRegular() {
			continue
		}
		content, err := os.ReadFile(from)
		require.NoError(t, err)
		to := filepath.Join(target, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(to), 0o755))
		require.NoError(t, os.WriteFile(to, content, info.Mode().Perm()))
	}
	command(t, target, "git", "init", "--quiet")
	command(t, target, "git", "add", "--all")
	command(t, target, "git", "-c", "user.name=test", "-c", "user.email=test@example.org", "commit", "--quiet", "-m", "source")
	return target
}

func command(t *testing.T, dir, name string, arguments ...string) string {
	t.Helper()
	command := exec.Command(name, arguments...)
	command.Dir = dir
	output, err := command.Output()
	require.NoError(t, err, "%s %s: %s", name, arguments, output)
	return string(output)
}

// desk is where a step is run: a checkout, and commands that stand before the real ones.
type desk struct {
	found
	dir   string
	fakes string
}

type result struct {
	output  string
	code    int
	outputs string // what it wrote to GITHUB_OUTPUT
}

// fake puts a command before the real one. It notes its arguments, each on a separate line with ">" before the first.
func (d *desk) fake(t *testing.T, name, script string) {
	t.Helper()
	script = fmt.Sprintf("#!/bin/bash\n{ printf '>'; printf '%%s\\n' \"$@\"; } >>%s/%s.calls\n%s\n", d.fakes, name, script)
	require.NoError(t, os.WriteFile(filepath.Join(d.fakes, name), []byte(script), 0o755))
}

// calls gives the arguments of each call of a fake, apart by spaces.
func (d *desk) calls(t *testing.T, name string) []string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(d.fakes, name+".calls"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	require.NoError(t, err)
	calls := strings.Split(strings.TrimSpace(string(content)), "\n>")
	for i, call := range calls {
		calls[i] = strings.ReplaceAll(strings.TrimPrefix(call, ">"), "\n", " ")
	}
	return calls
}

// run runs the script as the runner does. The step must declare just the variables that it is given.
func (d *desk) run(t *testing.T, env map[string]string, more ...string) result {
	t.Helper()
	require.Equal(t, d.env, slices.Sorted(maps.Keys(env)), "the variables that the step declares")
	folder := t.TempDir()
	script, outputs := filepath.Join(folder, "script"), filepath.Join(folder, "outputs")
	require.NoError(t, os.WriteFile(script, []byte(d.Run), 0o600))
	require.NoError(t, os.WriteFile(outputs, nil, 0o600))
	limit, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	command := exec.CommandContext(limit, "bash", "--noprofile", "--norc", "-eo", "pipefail", script)
	command.WaitDelay = time.Second
	command.Dir = d.dir
	command.Env = append(os.Environ(), "PATH="+d.fakes+":"+os.Getenv("PATH"), "GITHUB_OUTPUT="+outputs)
	for key, value := range env {
		command.Env = append(command.Env, key+"="+value)
	}
	command.Env = append(command.Env, more...)
	output, err := command.CombinedOutput()
	require.NoError(t, limit.Err(), "%s: not done after 3 minutes\n%s", d.Name, output)
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		require.NoError(t, err)
	}
	return result{string(output), command.ProcessState.ExitCode(), read(t, outputs)}
}

func (d *desk) succeed(t *testing.T, env map[string]string, more ...string) result {
	t.Helper()
	result := d.run(t, env, more...)
	require.Zero(t, result.code, result.output)
	return result
}

var goVersion = map[string]string{"GO_VERSION": "unused"}

func tryRedis(t *testing.T, d *desk) {
	d.succeed(t, goVersion)
	_, err := exec.LookPath("redis-server")
	require.NoError(t, err)
}

// Everything is compiled as there, and no test is run: make test does.
func tryCoverage(t *testing.T, d *desk) {
	result := d.succeed(t, goVersion, "GOFLAGS=-run=^$")
	require.Contains(t, result.output, "resilience/ratelimit")
	require.Contains(t, read(t, filepath.Join(d.dir, "dist", "coverage.out")), "mode: atomic")
}

func trySource(t *testing.T, d *desk) {
	env := map[string]string{"GATEWAY": "docker.io/acme/resilience-gateway", "UPSTREAM": "docker.io/acme/resilience-upstream", "VERSION": ""}
	tree := "tree-" + strings.TrimSpace(command(t, d.dir, "git", "rev-parse", "HEAD^{tree}"))

	d.fake(t, "docker", `echo "not found" >&2; exit 1`)
	require.Equal(t, "tree="+tree+"\ngateway=\nupstream=\n", d.succeed(t, env).outputs)

	d.fake(t, "docker", `case $4 in */resilience-gateway:*) echo `+gatewayDigest+` ;; *) echo `+upstreamDigest+` ;; esac`)
	require.Equal(t, "tree="+tree+"\ngateway="+gatewayDigest+"\nupstream="+upstreamDigest+"\n", d.succeed(t, env).outputs)
	require.Contains(t, d.calls(t, "docker"),
		"buildx imagetools inspect docker.io/acme/resilience-gateway:"+tree+" --format {{.Manifest.Digest}}")

	env["VERSION"] = "v1.2.3" // a release has separate images
	require.Contains(t, d.succeed(t, env).outputs, "tree="+tree+"-v1.2.3\n")
	require.Contains(t, d.calls(t, "docker"),
		"buildx imagetools inspect docker.io/acme/resilience-gateway:"+tree+"-v1.2.3 --format {{.Manifest.Digest}}")
}

func tryNames(t *testing.T, d *desk) {
	env := map[string]string{
		"GATEWAY": "docker.io/acme/resilience-gateway", "UPSTREAM": "docker.io/acme/resilience-upstream",
		"GATEWAY_DIGEST": gatewayDigest, "UPSTREAM_DIGEST": upstreamDigest, "NAMES": "v1.2.3 latest",
	}
	d.fake(t, "docker", "")
	require.Equal(t, "gateway="+gatewayDigest+"\nupstream="+upstreamDigest+"\n", d.succeed(t, env).outputs)
	create := "buildx imagetools create --tag docker.io/acme/"
	require.Equal(t, []string{
		create + "resilience-gateway:1.2.3 " + gatewayImage, create + "resilience-upstream:1.2.3 " + upstreamImage,
		create + "resilience-gateway:latest " + gatewayImage, create + "resilience-upstream:latest " + upstreamImage,
	}, d.calls(t, "docker"))

	for _, digest := range []string{"", "latest"} {
		env["UPSTREAM_DIGEST"] = digest
		result := d.run(t, env)
		require.NotZero(t, result.code)
		require.Empty(t, result.outputs)
	}
	require.Len(t, d.calls(t, "docker"), 4)

	env["UPSTREAM_DIGEST"] = upstreamDigest
	d.fake(t, "docker", "exit 1")
	result := d.run(t, env)
	require.NotZero(t, result.code)
	require.Empty(t, result.outputs)
}

var images = map[string]string{"GATEWAY_IMAGE": gatewayImage, "UPSTREAM_IMAGE": upstreamImage}

func with(env map[string]string, more map[string]string) map[string]string {
	env = maps.Clone(env)
	maps.Copy(env, more)
	return env
}

// source stands for the commit that a release is made of.
const source = "0123456789abcdef0123456789abcdef01234567"

const bundle = "plugins-local/src/github.com/resilient-gateway/resilience"

func tryBundle(t *testing.T, d *desk) {
	d.succeed(t, with(images, map[string]string{"SOURCE": source, "TAG": "v1.2.3"}))
	require.Contains(t, read(t, filepath.Join(d.dir, "dist", bundle, "version.go")), `const version = "1.2.3"`)
	require.Contains(t, read(t, filepath.Join(d.dir, "dist", bundle, "README.md")), "/blob/"+source+"/docs/")
	require.FileExists(t, filepath.Join(d.dir, "dist", bundle, "vendor", "github.com", "gomodule", "redigo", "redis", "conn.go"))
}

// A requirement that is not vendored is noticed.
func tryCheckBundle(t *testing.T, d *desk) {
	d.succeed(t, images)
	path := filepath.Join(d.dir, "dist", bundle, "vendor", "modules.txt")
	before := read(t, path)
	require.NoError(t, os.WriteFile(path, []byte("# nothing\n"), 0o644))
	result := d.run(t, images)
	require.NotZero(t, result.code)
	require.Contains(t, result.output, "inconsistent vendoring")
	require.NoError(t, os.WriteFile(path, []byte(before), 0o644))
	d.succeed(t, images)
}

func tryPack(t *testing.T, d *desk) {
	env := with(images, map[string]string{"TAG": "v1.2.3"})
	path := filepath.Join(d.dir, "dist", "release", "resilience-v1.2.3.tar.gz")
	d.succeed(t, env)
	first := read(t, path)
	require.NoError(t, filepath.Walk(filepath.Join(d.dir, "dist", bundle), func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		return os.Chtimes(path, info.ModTime(), info.ModTime().Add(-1e12))
	}))
	d.succeed(t, env)
	require.Equal(t, sha256.Sum256([]byte(first)), sha256.Sum256([]byte(read(t, path))), "the same source, another archive")

	unzipped, err := gzip.NewReader(strings.NewReader(first))
	require.NoError(t, err)
	var packed []string
	for archive := tar.NewReader(unzipped); ; {
		entry, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		require.True(t, strings.HasPrefix(entry.Name, bundle), entry.Name)
		packed = append(packed, strings.TrimPrefix(entry.Name, bundle+"/"))
	}
	require.Subset(t, packed, []string{".traefik.yml", "go.mod", "plugin.go", "vendor/modules.txt", "README.md", "THIRD_PARTY.md", ".assets/icon.png"})
}

func tryRender(t *testing.T, d *desk) {
	kubectl := filepath.Join(root(t), "dist", "bin", "kubectl")
	require.FileExists(t, kubectl, "run: make test-workflows")
	require.NoError(t, os.MkdirAll(filepath.Join(d.dir, "dist", "bin"), 0o755))
	require.NoError(t, os.Symlink(kubectl, filepath.Join(d.dir, "dist", "bin", "kubectl")))
	d.succeed(t, images)
	require.FileExists(t, filepath.Join(d.dir, "dist", "k8s-deployment.yaml"))
}

func tryNameInObjects(t *testing.T, d *desk) {
	d.succeed(t, images)
	rendered := read(t, filepath.Join(d.dir, "dist", "release", "k8s-deployment.yaml"))
	require.NotContains(t, rendered, "resilient-gateway/resilience-gateway:")
	used := map[string]bool{}
	decoder := yaml.NewDecoder(strings.NewReader(rendered))
	for {
		var object struct {
			Spec struct {
				Template struct {
					Spec struct {
						Containers []struct{ Image string }
					}
				}
			}
		}
		err := decoder.Decode(&object)
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		for _, container := range object.Spec.Template.Spec.Containers {
			used[container.Image] = true
		}
	}
	require.Contains(t, used, gatewayImage)
	require.Contains(t, used, upstreamImage)
	require.Len(t, used, 3, "%v: ours and that of Redis", used)

	objects := filepath.Join(d.dir, "dist", "k8s-deployment.yaml")
	before := read(t, objects)
	require.NoError(t, os.WriteFile(objects, []byte(strings.ReplaceAll(before, "resilient-gateway/resilience-upstream:", "another:")), 0o644))
	require.NotZero(t, d.run(t, images).code, "an image that was not named went through")
	require.NoError(t, os.WriteFile(objects, []byte(before), 0o644))
	d.succeed(t, images)
}

func trySums(t *testing.T, d *desk) {
	d.succeed(t, images)
	release := filepath.Join(d.dir, "dist", "release")
	sums := read(t, filepath.Join(release, "SHA256SUMS"))
	for _, name := range []string{"resilience-v1.2.3.tar.gz", "k8s-deployment.yaml"} {
		require.Contains(t, sums, fmt.Sprintf("%x  %s\n", sha256.Sum256([]byte(read(t, filepath.Join(release, name)))), name))
	}
	require.Equal(t, 2, strings.Count(sums, "\n"))
}

func tryRelease(t *testing.T, d *desk) {
	env := with(images, map[string]string{"TAG": "v1.2.3", "GH_TOKEN": "token", "GH_REPO": "acme/resilience", "SOURCE": source})
	d.fake(t, "gh", "")
	const files = "dist/release/SHA256SUMS dist/release/k8s-deployment.yaml dist/release/resilience-v1.2.3.tar.gz"
	d.succeed(t, env)
	env["TAG"] = "v1.3.0-rc.1"
	d.succeed(t, env)
	require.Equal(t, []string{
		"release create v1.2.3 --verify-tag --title v1.2.3 --notes-file dist/notes.md --generate-notes " + files,
		"release create v1.3.0-rc.1 --verify-tag --title v1.3.0-rc.1 --notes-file dist/notes.md --generate-notes --prerelease " + files,
	}, d.calls(t, "gh"))
	notes := read(t, filepath.Join(d.dir, "dist", "notes.md"))
	require.Contains(t, notes, "- `"+gatewayImage+"`\n- `"+upstreamImage+"`\n")
	require.Contains(t, notes, "`resilience-v1.3.0-rc.1.tar.gz`")
	require.Contains(t, notes, "Its parent, "+source+", is the whole source")
	require.False(t, bytes.Contains([]byte(notes), []byte("$")), notes)

	d.fake(t, "gh", "exit 1")
	require.NotZero(t, d.run(t, env).code)
}
