package compose

import (
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

// readEnvFile returns the variables of a file such as .env.example; none if it cannot be read.
func readEnvFile(path string) map[string]string {
	content, _ := os.ReadFile(path)
	variables := map[string]string{}
	for _, line := range strings.Split(string(content), "\n") {
		if name, value, found := strings.Cut(line, "="); found && !strings.HasPrefix(line, "#") {
			variables[name] = value
		}
	}
	return variables
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(project, path))
	require.NoError(t, err)
	return string(content)
}

var (
	interpolated = regexp.MustCompile(`(?:^|[^$])\$\{([A-Z_]+)`)
	arguments    = regexp.MustCompile(`args: \[([A-Z_, ]+)\]`)
	templated    = regexp.MustCompile(`env "([A-Z_]+)"`)
	passwords    = regexp.MustCompile(`passwordEnv: ([A-Z_]+)`)
	ofDeployment = regexp.MustCompile(`\(setting ([A-Z_]+)`)
)

// TestVariables holds .env.example against what reads variables: all that is used is in it, and nothing else.
func TestVariables(t *testing.T) {
	used := map[string]bool{}
	note := func(text string, pattern *regexp.Regexp) {
		for _, match := range pattern.FindAllStringSubmatch(text, -1) {
			for _, name := range strings.Split(match[1], ", ") {
				used[name] = true
			}
		}
	}
	for _, file := range []string{"docker-compose.yml", "docker-compose.prod.yml"} {
		note(read(t, file), interpolated)
		note(read(t, file), arguments)
	}
	dynamic, err := filepath.Glob(filepath.Join(project, "dynamic", "*.yml"))
	require.NoError(t, err)
	for _, file := range dynamic {
		content, err := os.ReadFile(file)
		require.NoError(t, err)
		note(string(content), templated)
		note(string(content), passwords)
	}
	note(read(t, "deploy.sh"), ofDeployment)
	delete(used, "COMPOSE_PROJECT_NAME") // Compose's own
	require.Equal(t, sorted(used), sorted(readEnvFile(filepath.Join(project, ".env.example"))))

	for name := range readEnvFile(filepath.Join(project, ".env.prod")) {
		require.Contains(t, used, name, ".env.prod")
	}
}

func sorted[V any](set map[string]V) []string {
	names := make([]string, 0, len(set))
	for name := range set {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// TestDefaults: the files of settings say what the Compose files take without them.
func TestDefaults(t *testing.T) {
	const secret = "REDIS_PASSWORD=a secret of the tests"
	rows := []struct{ file, settings, environment string }{
		{"docker-compose.yml", ".env.example", "NOTHING="},
		{"docker-compose.prod.yml", ".env.prod", secret},
	}
	for _, row := range rows {
		without := command{env: []string{row.environment}}
		require.Equal(t,
			normal(without.must(t, "docker", "compose", "-f", row.file, "--profile", "*", "config")),
			normal(without.must(t, "docker", "compose", "-f", row.file, "--profile", "*", "--env-file", row.settings, "config")),
			row.settings)
	}
	arguments := map[string]string{}
	for _, match := range regexp.MustCompile(`(?m)^ARG ([A-Z_]+)=(\S+)$`).FindAllStringSubmatch(read(t, "Dockerfile"), -1) {
		arguments[match[1]] = match[2]
	}
	shown := readEnvFile(filepath.Join(project, ".env.example"))
	require.Equal(t, []string{"GO_IMAGE", "REVISION", "TRAEFIK_IMAGE", "VERSION"}, sorted(arguments))
	for name, value := range arguments {
		require.Equal(t, value, shown[name], name)
	}
}

// TestPinned: no image of others can change with the next release of theirs.
func TestPinned(t *testing.T) {
	for name, image := range readEnvFile(filepath.Join(project, ".env.example")) {
		if strings.HasSuffix(name, "_IMAGE") && !strings.HasSuffix(image, ":local") {
			require.Regexp(t, `:v?\d+\.\d+\.\d+`, image, name)
		}
	}
}

// normal leaves out the build arguments, which Compose shows only where they are set; TestDefaults compares them itself.
func normal(config string) string {
	return regexp.MustCompile(`(?m)^ +(args:|(GO_IMAGE|TRAEFIK_IMAGE|VERSION|REVISION):.*)\n`).ReplaceAllString(config, "")
}

// TestComposeFiles: both are valid as they are, and production is refused without its secret.
func TestComposeFiles(t *testing.T) {
	command{}.must(t, "docker", "compose", "-f", "docker-compose.yml", "config", "--quiet")
	command{env: []string{"REDIS_PASSWORD=x"}}.must(t, "docker", "compose", "-f", "docker-compose.prod.yml", "config", "--quiet")
	output, code := command{}.run(t, "docker", "compose", "-f", "docker-compose.prod.yml", "config", "--quiet")
	require.NotZero(t, code)
	require.Contains(t, output, "REDIS_PASSWORD")
	require.NotContains(t, read(t, "docker-compose.prod.yml"), "docker.sock")
}

// TestMemory: garbage may gather, and is collected before the kernel would kill for it.
func TestMemory(t *testing.T) {
	require.Contains(t, read(t, "Dockerfile"), "\nENV GOGC=400 GOMEMLIMIT=512MiB\n")
	for file, limit := range map[string]any{"docker-compose.yml": nil, "docker-compose.prod.yml": "512M"} {
		var stack struct {
			Services map[string]struct {
				Environment map[string]string
				Deploy      struct {
					Resources struct{ Limits map[string]any }
				}
			}
		}
		require.NoError(t, yaml.Unmarshal([]byte(read(t, file)), &stack))
		gateway := stack.Services["proxy-service"]
		require.Equal(t, "400", gateway.Environment["GOGC"], file)
		require.Equal(t, "/run/secrets", gateway.Environment["RESILIENCE_SECRETS_DIR"], file)
		require.Equal(t, limit, gateway.Deploy.Resources.Limits["memory"], file)
		own := map[any]string{nil: "512MiB", "512M": "460MiB"}[limit] // nine tenths of the limit
		require.Equal(t, own, gateway.Environment["GOMEMLIMIT"], file)
	}
}

// TestStaticConfigurations: the one for Compose differs from traefik.yml in its provider only.
func TestStaticConfigurations(t *testing.T) {
	var files, labels map[string]any
	require.NoError(t, yaml.Unmarshal([]byte(read(t, "traefik/traefik.yml")), &files))
	require.NoError(t, yaml.Unmarshal([]byte(read(t, "traefik/compose.yml")), &labels))
	require.Contains(t, files["providers"], "file")
	require.Contains(t, labels["providers"], "docker")
	delete(files, "providers")
	delete(labels, "providers")
	require.Equal(t, files, labels)
}

// TestDockerfile: the checks of Docker's own builder find nothing in ours, and something where there is something.
func TestDockerfile(t *testing.T) {
	linter := filepath.Join(project, "dist", "bin", "dockerlint")
	command{}.must(t, linter, "Dockerfile")

	bad := filepath.Join(t.TempDir(), "Dockerfile")
	require.NoError(t, os.WriteFile(bad, []byte("FROM scratch\nWORKDIR here\nENV PASSWORD=x\n"), 0o644))
	output, code := command{}.run(t, linter, bad)
	require.Equal(t, 1, code)
	require.Contains(t, output, "WorkdirRelativePath")
	require.Contains(t, output, "SecretsUsedInArgOrEnv")
}
