package e2e

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestAnswers has each refusal say what the configuration says, and what is left.
func TestAnswers(t *testing.T) {
	t.Parallel()
	own := block{
		"status": 420, "contentType": "text/plain", "body": "{retryAfter}|{limit}|{requestID}",
		"headers": block{"X-Reason": "busy", "X-Number": 5},
	}
	one := block{"capacity": 1, "refillRate": 1, "refillPeriod": "1h"}
	told := func(on string) block {
		return block{"capacity": 3, "refillRate": 1, "refillPeriod": "1h", "responseHeaders": "both", "responseHeadersOn": on}
	}
	g := startTraefik(t, options{upstream: startUpstream(t), dynamic: writeRows(t, map[string]block{
		"limited": {"rateLimit": one, "answers": block{"rateLimited": own}},
		"open":    {"circuitBreaker": block{"failureThreshold": 1, "resetTimeout": "1h"}, "answers": block{"circuitOpen": own}},
		"denied":  {"rateLimit": one, "redis": block{"address": freeAddress(t), "onError": "deny"}, "answers": block{"unavailable": own}},
		"problem": {"rateLimit": one, "answers": block{"format": "problem"}},
		"always":  {"rateLimit": told("always"), "circuitBreaker": block{"failureThreshold": 5}},
		"refused": {"rateLimit": told("refused")},
	})})
	require.Equal(t, 200, g.get("/limited").status)
	require.Equal(t, 500, g.get("/open/fail").status)
	require.Equal(t, 200, g.get("/problem").status)
	for path, body := range map[string]string{"/limited": "3600|default|a-1", "/open": "3600||a-1", "/denied": "1||a-1"} {
		t.Run(path, func(t *testing.T) {
			for range 3 {
				request, err := http.NewRequest(http.MethodGet, g.url(path), nil)
				require.NoError(t, err)
				request.Header.Set("X-Request-Id", "a-1")
				r := send(request)
				require.Equal(t, 420, r.status)
				require.Equal(t, "text/plain", r.header.Get("Content-Type"))
				require.Equal(t, "busy", r.header.Get("X-Reason"))
				require.Equal(t, "5", r.header.Get("X-Number"))
				seconds, rest, _ := strings.Cut(r.body, "|")
				require.Equal(t, r.header.Get("Retry-After"), seconds)
				_, want, _ := strings.Cut(body, "|")
				require.Equal(t, want, rest)
			}
		})
	}
	t.Run("a problem", func(t *testing.T) {
		r := g.get("/problem")
		var problem struct {
			Title      string
			Status     int
			RetryAfter int
		}
		require.NoError(t, json.Unmarshal([]byte(r.body), &problem), r.body)
		require.Equal(t, "application/problem+json", r.header.Get("Content-Type"))
		require.Equal(t, "Too Many Requests", problem.Title)
		require.Equal(t, 429, problem.Status)
		require.Positive(t, problem.RetryAfter)
	})
	t.Run("what is left", func(t *testing.T) {
		for _, want := range []string{"2", "1", "0", "0"} {
			r := g.get("/always")
			require.Equal(t, want, r.header.Get("X-RateLimit-Remaining"), "%+v", r)
			require.Equal(t, "3", r.header.Get("X-RateLimit-Limit"))
			require.Equal(t, `"default";q=3;w=10800`, r.header.Get("RateLimit-Policy"))
			require.True(t, strings.HasPrefix(r.header.Get("RateLimit"), `"default";r=`+want+`;t=3`), r.header)
		}
		for _, want := range []string{"", "", "", "0"} {
			require.Equal(t, want, g.get("/refused").header.Get("X-RateLimit-Remaining"))
		}
	})
}
