package kubernetes

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

// requireAnswers adds a Middleware that configures answers and response headers, and a route that uses it.
func (s *site) requireAnswers(t *testing.T, g *traefik) {
	t.Helper()
	for _, o := range []object{
		{
			"apiVersion": "traefik.io/v1alpha1", "kind": "Middleware", "metadata": object{"name": "answers", "namespace": namespace},
			"spec": object{"plugin": object{"resilience": object{
				"rateLimit": object{"capacity": 2, "refillRate": 1, "refillPeriod": "1h", "responseHeaders": "both"},
				"answers": object{"rateLimited": object{
					"status": 420, "contentType": "text/plain", "body": "{limit}: wait", "headers": object{"X-Reason": "busy", "X-Number": 5},
				}},
			}}},
		},
		{
			"apiVersion": "traefik.io/v1alpha1", "kind": "IngressRoute", "metadata": object{"name": "answers", "namespace": namespace},
			"spec": object{"ingressClassName": "resilience", "entryPoints": []any{"web"}, "routes": []any{object{
				"kind": "Rule", "match": "Path(`/ok`)", "middlewares": []any{object{"name": "answers"}},
				"services": []any{object{"name": "upstream", "port": "http"}},
			}}},
		},
	} {
		out, err := s.create(o)
		require.NoError(t, err, out)
	}
	g.eventually("/ok", http.StatusOK)
	passed := g.get("/ok")
	require.Equal(t, http.StatusOK, passed.status)
	require.Equal(t, "0", passed.header.Get("X-RateLimit-Remaining"))
	require.Equal(t, `"default";q=2;w=7200`, passed.header.Get("RateLimit-Policy"))
	refused := g.get("/ok")
	require.Equal(t, 420, refused.status)
	require.Equal(t, "default: wait", refused.body)
	require.Equal(t, "text/plain", refused.header.Get("Content-Type"))
	require.Equal(t, "busy", refused.header.Get("X-Reason"))
	require.Equal(t, "5", refused.header.Get("X-Number"))
	require.Equal(t, "0", refused.header.Get("X-RateLimit-Remaining"))
}
