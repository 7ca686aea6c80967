package compose

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/harness/walkthrough"
	"github.com/stretchr/testify/require"
)

// blocks returns the commands of a section of a document, in the order in which it prints them.
func blocks(t *testing.T, document, heading string) (steps []walkthrough.Step) {
	t.Helper()
	_, section, found := strings.Cut(read(t, document), "\n"+heading+"\n")
	require.True(t, found, "%s has no %s", document, heading)
	inside := false
	for line := range strings.Lines(section) {
		command, isCommand := strings.CutPrefix(line, "$ ")
		switch {
		case strings.HasPrefix(line, "```"):
			inside = strings.TrimSpace(line) == "```console"
		case !inside && strings.HasPrefix(line, "#"):
			return steps
		case inside && isCommand:
			steps = append(steps, walkthrough.Step{Command: strings.TrimSpace(command)})
		case inside:
			steps[len(steps)-1].Want += line
		}
	}
	return steps
}

// follow types the commands of a section as they are printed, with the port of the test, and compares what they print with what the
// document says.
func (s *stack) follow(t *testing.T, document, heading string) {
	t.Helper()
	steps := blocks(t, document, heading)
	require.NotEmpty(t, steps)
	_, port, _ := strings.Cut(s.web, ":")
	published := map[string]string{"5000": port}
	for _, step := range steps {
		output := s.must(t, "bash", "-c", walkthrough.Ports(step.Command, published))
		step.Want = walkthrough.Ports(step.Want, published)
		if step.Want != "" { // Compose reports its progress, which the documents leave out
			require.NoError(t, step.Match(output))
		}
	}
}

func (s *stack) requireNothingLeft(t *testing.T) {
	t.Helper()
	for _, kind := range []string{"container", "volume", "network"} {
		require.Empty(t, s.must(t, "docker", kind, "ls", "--quiet", "--filter", "label=com.docker.compose.project="+s.name), kind)
	}
}

// TestDocuments follows the README and the page on deployment word for word.
func TestDocuments(t *testing.T) {
	volumes := strings.Fields(command{}.must(t, "docker", "volume", "ls", "--quiet"))
	t.Run("README, With Docker", func(t *testing.T) {
		s := newStack(t, "docker-compose.yml")
		s.follow(t, "README.md", "### With Docker")
		s.requireNothingLeft(t)
	})
	t.Run("Deployment, Development stack", func(t *testing.T) {
		s := newStack(t, "docker-compose.yml", "CIRCUIT_BREAKER_RESET_TIMEOUT_SECONDS=3")
		s.follow(t, "docs/deployment.md", "## Development stack")
		s.requireNothingLeft(t)
	})
	require.Equal(t, volumes, strings.Fields(command{}.must(t, "docker", "volume", "ls", "--quiet")), "volumes without a name")
	t.Run("Deployment, Production on one host", func(t *testing.T) {
		home := t.TempDir()
		s := newStack(t, "docker-compose.prod.yml", "HOME="+home)
		s.follow(t, "docs/deployment.md", "## Production on one host")
		require.Equal(t, http.StatusOK, s.get("/proxy/ok").status)
		// What the cleanup's Compose needs.
		s.env = append(s.env, "REDIS_PASSWORD="+readEnvFile(filepath.Join(home, "resilience.env"))["REDIS_PASSWORD"])
		s.await("/health", http.StatusOK, 10*time.Second)
	})
}
