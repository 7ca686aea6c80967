// Package workflows tests the workflows in .github: they are linted by the tools made for that, held to our rules,
// and their steps are run.
package workflows

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

const actionlint = "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12"

var (
	secrets = []string{
		"DOCKER_PASSWORD", "DOCKER_USERNAME", "PROD_DEPLOY_KEY", "PROD_HOST", "PROD_USER",
		"STAGING_DEPLOY_KEY", "STAGING_HOST", "STAGING_USER",
	}
	variables = []string{"PROD_KNOWN_HOSTS", "PROD_SSH_PORT", "STAGING_KNOWN_HOSTS", "STAGING_SSH_PORT"}

	// permissions of the jobs that have more than to read the source.
	permissions = map[string]map[string]string{
		"ci.yml coverage":     {"contents": "read", "id-token": "write"},
		"image.yml image":     {"contents": "read", "id-token": "write", "attestations": "write"},
		"deploy.yml test":     {"contents": "read", "id-token": "write"},
		"deploy.yml build":    {"contents": "read", "id-token": "write", "attestations": "write"},
		"release.yml test":    {"contents": "read", "id-token": "write"},
		"release.yml image":   {"contents": "read", "id-token": "write", "attestations": "write"},
		"release.yml release": {"contents": "write", "id-token": "write", "attestations": "write"},
	}
)

// one holds a single word, or a list of them.
type one []string

func (o *one) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind == yaml.ScalarNode {
		*o = one{node.Value}
		return nil
	}
	return node.Decode((*[]string)(o))
}

type concurrency struct {
	Group  string
	Cancel bool `yaml:"cancel-in-progress"`
}

type step struct {
	Name, ID, Uses, If, Run string
	Env, With               map[string]string
}

type job struct {
	If          string
	Needs       one
	Uses        string
	Timeout     int `yaml:"timeout-minutes"`
	Permissions map[string]string
	Environment struct{ Name string }
	Concurrency concurrency
	Env         map[string]string
	Steps       []step
}

type workflow struct {
	On          map[string]any
	Permissions map[string]string
	Concurrency concurrency
	Env         map[string]string
	Defaults    struct{ Run struct{ Shell string } }
	Jobs        map[string]job
}

// tree is the text of each workflow by its name, and of the Dockerfile.
type tree struct {
	texts      map[string]string
	dockerfile string
}

func root(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../../..")
	require.NoError(t, err)
	return path
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(content)
}

func readTree(t *testing.T) tree {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(root(t), ".github", "workflows", "*"))
	require.NoError(t, err)
	read := func(path string) string { return read(t, path) }
	here := tree{texts: map[string]string{}, dockerfile: read(filepath.Join(root(t), "Dockerfile"))}
	for _, path := range paths {
		here.texts[filepath.Base(path)] = read(path)
	}
	require.Subset(t, slices.Collect(maps.Keys(here.texts)), []string{"ci.yml", "deploy.yml", "release.yml"})
	return here
}

func parse(text string) (workflow, error) {
	var parsed workflow
	err := yaml.Unmarshal([]byte(text), &parsed)
	return parsed, err
}

// problems says what is wrong with the workflows.
func problems(here tree) []string {
	var found []string
	report := func(format string, values ...any) { found = append(found, fmt.Sprintf(format, values...)) }
	usedSecrets, usedVariables := map[string]bool{}, map[string]bool{}
	pins, caches := map[string]string{}, map[string]string{}
	widened := maps.Clone(permissions)
	goVersion := regexp.MustCompile(`(?m)^ARG GO_IMAGE=golang:([0-9.]+)`).FindStringSubmatch(here.dockerfile)[1]

	for _, name := range slices.Sorted(maps.Keys(here.texts)) {
		text := here.texts[name]
		for number, line := range strings.Split(text, "\n") {
			checkUses(line, pins, func(problem string) { report("%s:%d: %s", name, number+1, problem) })
		}
		for _, match := range regexp.MustCompile(`secrets\.([A-Za-z0-9_]+)`).FindAllStringSubmatch(text, -1) {
			usedSecrets[match[1]] = true
		}
		for _, match := range regexp.MustCompile(`vars\.([A-Za-z0-9_]+)`).FindAllStringSubmatch(text, -1) {
			usedVariables[match[1]] = true
		}
		if strings.Contains(text, "secrets: inherit") {
			report("%s hands on every secret", name)
		}

		parsed, err := parse(text)
		if err != nil {
			report("%s: %v", name, err)
			continue
		}
		if !maps.Equal(parsed.Permissions, map[string]string{"contents": "read"}) {
			report("%s: permissions at the top are %v", name, parsed.Permissions)
		}
		if parsed.Defaults.Run.Shell != "bash" {
			report("%s: without shell: bash, a failure within a pipe is no failure", name)
		}
		if _, bad := parsed.On["pull_request_target"]; bad {
			report("%s: pull_request_target gives secrets to strangers", name)
		}
		for id, job := range parsed.Jobs {
			key := name + " " + id
			if job.Permissions != nil && !maps.Equal(job.Permissions, widened[key]) {
				report("%s: permissions are %v", key, job.Permissions)
			}
			if job.Permissions != nil {
				delete(widened, key)
			}
			if job.Uses == "" && job.Timeout == 0 {
				report("%s has no timeout", key)
			}
			names := map[string]bool{}
			for _, step := range job.Steps {
				if step.Name == "" || names[step.Name] {
					report("%s: a step has no name of its own: %q", key, step.Name)
				}
				names[step.Name] = true
				if strings.Contains(step.Run, "${{") {
					report("%s: %s: an expression within the script", key, step.Name)
				}
				action, _, _ := strings.Cut(step.Uses, "@")
				switch action {
				case "actions/checkout":
					if step.With["persist-credentials"] != "false" {
						report("%s keeps the credentials of the checkout", key)
					}
				case "actions/setup-go":
					version := strings.ReplaceAll(step.With["go-version"], "${{ env.GO_VERSION }}", parsed.Env["GO_VERSION"])
					if version != goVersion {
						report("%s: Go %s, where the Dockerfile has %s", key, version, goVersion)
					}
					sums := step.With["cache-dependency-path"]
					switch other, taken := caches[sums]; {
					case name != "ci.yml" && step.With["cache"] != "false":
						report("%s: a cache in what is published", key)
					case name == "ci.yml" && (sums == "" || taken):
						report("%s: its cache is that of %s", key, other)
					}
					caches[sums] = key
				case "docker/build-push-action":
					for option, want := range map[string]string{
						"push": "true", "sbom": "true", "provenance": "mode=max", "platforms": "linux/amd64,linux/arm64",
					} {
						if step.With[option] != want {
							report("%s: %s: %s is %q", key, step.Name, option, step.With[option])
						}
					}
				}
			}
		}
		if name == "deploy.yml" {
			checkDeployment(parsed, report)
		}
		if name == "release.yml" {
			checkRelease(parsed, report)
		}
		if name == "ci.yml" && !parsed.Concurrency.Cancel {
			report("ci.yml goes on with what is out of date")
		}
	}
	for key := range widened {
		report("%s: these permissions are not asked for", key)
	}
	for _, difference := range differences(secrets, usedSecrets) {
		report("secret %s", difference)
	}
	for _, difference := range differences(variables, usedVariables) {
		report("variable %s", difference)
	}
	return found
}

var (
	usesLine = regexp.MustCompile(`^\s*(?:- )?uses:\s*(\S+)\s*(.*)$`)
	pinned   = regexp.MustCompile(`^[\w.-]+/[\w./-]+@[0-9a-f]{40}$`)
	version  = regexp.MustCompile(`^# v\d+\.\d+\.\d+$`)
)

func checkUses(line string, pins map[string]string, report func(string)) {
	match := usesLine.FindStringSubmatch(line)
	if match == nil || strings.HasPrefix(match[1], "./.github/workflows/") {
		return
	}
	if !pinned.MatchString(match[1]) {
		report(match[1] + " is not pinned by its full SHA")
	}
	if !version.MatchString(match[2]) {
		report(match[1] + " does not say its version")
	}
	action, _, _ := strings.Cut(match[1], "@")
	if before, known := pins[action]; known && before != match[0][strings.Index(match[0], "@"):] {
		report(action + " is pinned in two versions")
	}
	if at := strings.Index(match[0], "@"); at >= 0 {
		pins[action] = match[0][at:]
	}
}

func checkDeployment(parsed workflow, report func(string, ...any)) {
	for id, want := range map[string]struct{ environment, branch, own, other string }{
		"deploy-staging":    {"staging", "develop", "STAGING_", "PROD_"},
		"deploy-production": {"production", "main", "PROD_", "STAGING_"},
	} {
		job := parsed.Jobs[id]
		if job.Environment.Name != want.environment {
			report("%s: environment %q", id, job.Environment.Name)
		}
		if job.If != "github.ref == 'refs/heads/"+want.branch+"'" {
			report("%s: runs if %s", id, job.If)
		}
		if !slices.Equal(job.Needs, one{"build"}) || !slices.Equal(parsed.Jobs["build"].Needs, one{"test"}) {
			report("%s does not come after test and build", id)
		}
		if job.Concurrency.Group != id || job.Concurrency.Cancel {
			report("%s: concurrency %v", id, job.Concurrency)
		}
		for _, step := range job.Steps {
			for key, value := range step.Env {
				if strings.Contains(value, "."+want.other) {
					report("%s: %s is of the other host", id, key)
				}
			}
		}
	}
}

// checkRelease requires that a release begins by hand, so that none begins another, and with the check of its version.
func checkRelease(parsed workflow, report func(string, ...any)) {
	if triggers := slices.Sorted(maps.Keys(parsed.On)); !slices.Equal(triggers, []string{"workflow_dispatch"}) {
		report("release.yml begins on %v", triggers)
	}
	for id, want := range map[string]one{"version": nil, "test": {"version"}, "image": {"test"}, "release": {"image"}} {
		if !slices.Equal(parsed.Jobs[id].Needs, want) {
			report("release.yml: %s comes after %v, not after %v", id, parsed.Jobs[id].Needs, want)
		}
	}
	if parsed.Concurrency.Group != "release" || parsed.Concurrency.Cancel {
		report("release.yml: two releases at once: concurrency %v", parsed.Concurrency)
	}
	steps := parsed.Jobs["release"].Steps
	if last := steps[max(len(steps)-2, 0):]; len(last) < 2 || last[0].Name != "Tag the bundle" || last[1].Name != "Release" {
		report("release.yml: the tag is not pushed after all that can fail")
	}
}

// differences says what of want is not in have, and the other way round.
func differences(want []string, have map[string]bool) []string {
	var found []string
	for _, name := range want {
		if !have[name] {
			found = append(found, name+" is not used")
		}
	}
	for name := range have {
		if !slices.Contains(want, name) {
			found = append(found, name+" is not in the list")
		}
	}
	return found
}

func TestWorkflows_followTheRules(t *testing.T) {
	require.Empty(t, problems(readTree(t)))
}

// Each rule sees what breaks it.
func TestRules_seeWhatBreaksThem(t *testing.T) {
	const checkout = "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1"
	for _, broken := range []struct{ file, old, new, problem string }{
		{"ci.yml", checkout + " # v7.0.1", "actions/checkout@v7 # v7.0.1", "is not pinned by its full SHA"},
		{"ci.yml", checkout + " # v7.0.1", checkout, "does not say its version"},
		{"ci.yml", checkout, strings.Replace(checkout, "@3d", "@4d", 1), "is pinned in two versions"},
		{"ci.yml", "contents: read", "contents: write", "permissions at the top"},
		{"ci.yml", "id-token: write", "actions: write", "ci.yml coverage: permissions"},
		{"release.yml", "contents: write", "contents: read", "release.yml release: permissions"},
		{"ci.yml", "persist-credentials: false", "fetch-depth: 1", "keeps the credentials"},
		{"ci.yml", "run: make lint", "run: make ${{ github.head_ref }}", "an expression within the script"},
		{"ci.yml", "name: Lint the code", "name: Set up Go", "no name of its own"},
		{"ci.yml", "shell: bash", "working-directory: .", "no failure"},
		{"ci.yml", "pull_request:", "pull_request_target:", "strangers"},
		{"ci.yml", "timeout-minutes: 20", "", "has no timeout"},
		{"ci.yml", `"1.26.8"`, `"1.25.0"`, "where the Dockerfile has"},
		{"ci.yml", "cache-dependency-path: go.sum", "", "its cache is that of"},
		{"ci.yml", "cancel-in-progress: true", "cancel-in-progress: false", "out of date"},
		{"release.yml", "cache: false", "cache: true", "a cache in what is published"},
		{"image.yml", "provenance: mode=max", "provenance: false", "provenance is"},
		{"image.yml", "sbom: true", "sbom: false", "sbom is"},
		{"deploy.yml", "name: production #", "name: elsewhere #", "environment"},
		{"deploy.yml", "'refs/heads/main'\n", "'refs/heads/develop'\n", "runs if"},
		{"deploy.yml", "needs: test", "", "after test and build"},
		{"deploy.yml", "cancel-in-progress: false", "cancel-in-progress: true", "concurrency"},
		{"deploy.yml", "vars.PROD_KNOWN_HOSTS", "vars.STAGING_KNOWN_HOSTS", "of the other host"},
		{"deploy.yml", "secrets.PROD_HOST", "secrets.PROD_ADDRESS", "PROD_ADDRESS is not in the list"},
		{"deploy.yml", "secrets.PROD_HOST", "vars.PROD_HOST", "secret PROD_HOST is not used"},
		{"release.yml", "  workflow_dispatch:", "  push:", "begins on [push]"},
		{"release.yml", "needs: version", "", "test comes after []"},
		{"release.yml", "needs: image", "needs: version", "release comes after [version]"},
		{"release.yml", "group: release", "group: release-${{ github.ref }}", "two releases at once"},
		{"release.yml", "name: Tag the bundle", "name: Tag", "after all that can fail"},
		{"deploy.yml", "secrets:\n", "secrets: inherit\n", "hands on every secret"},
	} {
		here := readTree(t)
		text := strings.Replace(here.texts[broken.file], broken.old, broken.new, 1)
		require.NotEqual(t, here.texts[broken.file], text, "%s has no %q", broken.file, broken.old)
		here.texts[broken.file] = text
		require.Contains(t, strings.Join(problems(here), "\n"), broken.problem, "%s: %s", broken.file, broken.new)
	}
}

func TestWorkflows_actionlint(t *testing.T) {
	_, err := exec.LookPath("shellcheck")
	require.NoError(t, err, "run: make test-workflows")
	lint := exec.Command("go", "run", actionlint)
	lint.Dir = root(t)
	output, err := lint.CombinedOutput()
	require.NoError(t, err, "%s", output)
}

// Every script of the repository: what begins by naming a shell.
func TestScripts_shellcheck(t *testing.T) {
	var scripts []string
	for _, name := range strings.Fields(command(t, root(t), "git", "ls-files", "-co", "--exclude-standard")) {
		content, err := os.ReadFile(filepath.Join(root(t), name))
		if err == nil && regexp.MustCompile(`^#!.*\b(ba)?sh\n`).Match(content) {
			scripts = append(scripts, name)
		}
	}
	require.Subset(t, scripts, []string{".ci/run", ".github/scripts/deploy-to-host", "deploy.sh"})
	check := exec.Command("shellcheck", scripts...)
	check.Dir = root(t)
	output, err := check.CombinedOutput()
	require.NoError(t, err, "%s", output)
}

func TestDependabot_waitsAndSeesEveryModule(t *testing.T) {
	var config struct {
		Updates []struct {
			Ecosystem   string `yaml:"package-ecosystem"`
			Directory   string
			Directories []string
			Cooldown    struct {
				Days int `yaml:"default-days"`
			}
		}
	}
	require.NoError(t, yaml.Unmarshal([]byte(read(t, filepath.Join(root(t), ".github", "dependabot.yml"))), &config))
	var seen []string
	for _, update := range config.Updates {
		require.GreaterOrEqual(t, update.Cooldown.Days, 7, update.Ecosystem)
		for _, directory := range append(update.Directories, update.Directory) {
			if directory != "" {
				seen = append(seen, update.Ecosystem+" "+directory)
			}
		}
	}
	want := []string{"docker /", "docker-compose /", "github-actions /"}
	for _, file := range strings.Fields(command(t, root(t), "git", "ls-files", "-co", "--exclude-standard", "*go.mod")) {
		if file == "harness/ext/go.mod" || file == "deploy/check/go.mod" || strings.HasPrefix(file, "harness/deploy/") {
			continue // requires nothing, or is kept by hand
		}
		want = append(want, "gomod "+filepath.Join("/", filepath.Dir(file)))
	}
	require.ElementsMatch(t, want, seen)
}
