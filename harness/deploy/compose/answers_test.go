package compose

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// requireAnswers adds a container whose labels configure answers and response headers, also by a name with a dash.
func (s *stack) requireAnswers(t *testing.T) {
	t.Helper()
	const plugin = "traefik.http.middlewares.answers.plugin.resilience."
	args := []string{"run", "--detach", "--no-healthcheck", "--network", s.network(), "--label", "resilience.gateway=development"}
	for name, value := range map[string]string{
		"traefik.enable": "true",
		"traefik.http.services.answers.loadbalancer.server.port": "8081",
		"traefik.http.routers.answers.rule":                      "Path(`/ok`)",
		"traefik.http.routers.answers.entrypoints":               "web",
		"traefik.http.routers.answers.middlewares":               "answers",
		"traefik.http.routers.answers.service":                   "upstream",
		plugin + "rateLimit.capacity":                            "2",
		plugin + "rateLimit.refillRate":                          "1",
		plugin + "rateLimit.refillPeriod":                        "1h",
		plugin + "rateLimit.responseHeaders":                     "both",
		plugin + "answers.rateLimited.status":                    "420",
		plugin + "answers.rateLimited.contentType":               "text/plain",
		plugin + "answers.rateLimited.body":                      "{limit}: wait",
		plugin + "answers.rateLimited.headers.X-Reason":          "busy",
	} {
		args = append(args, "--label", name+"="+value)
	}
	id := s.must(t, "docker", append(args, s.inspect("upstream").Image)...)
	defer s.must(t, "docker", "rm", "--force", "--volumes", id[:12])

	s.await("/ok", http.StatusOK, 30*time.Second)
	passed := s.get("/ok")
	require.Equal(t, http.StatusOK, passed.status)
	require.Equal(t, "0", passed.header.Get("X-RateLimit-Remaining"))
	require.Equal(t, `"default";q=2;w=7200`, passed.header.Get("RateLimit-Policy"))
	refused := s.get("/ok")
	require.Equal(t, 420, refused.status)
	require.Equal(t, "default: wait", refused.body)
	require.Equal(t, "text/plain", refused.header.Get("Content-Type"))
	require.Equal(t, "busy", refused.header.Get("X-Reason"))
	require.Equal(t, "0", refused.header.Get("X-RateLimit-Remaining"))
}

// network returns the name of the network that the upstream is in.
func (s *stack) network() string {
	s.t.Helper()
	for name := range s.inspect("upstream").NetworkSettings.Networks {
		return name
	}
	require.Fail(s.t, "the upstream is in no network")
	return ""
}
