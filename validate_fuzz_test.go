//go:build !yaegi

package resilience

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/identity"
	"github.com/resilient-gateway/resilience/ratelimit"
	"github.com/stretchr/testify/require"
)

// FuzzRead checks that any configuration is either refused, with a message of one line that names a key, or yields usable settings.
func FuzzRead(f *testing.F) {
	for _, seed := range []string{
		`{}`,
		`{"Name": "gateway", "RateLimit": {"Capacity": "100", "RefillRate": "10.000000", "RefillPeriod": "1s"}}`,
		`{"RateLimit": {"Capacity": "1000000000", "RefillPeriod": "24h"}}`,
		`{"RateLimit": {"SourceCriterion": {"IPStrategy": {"Depth": "1", "ExcludedIPs": ["10.0.0.0/8, ::1", "x"], "IPv6Subnet": "64"}}}}`,
		`{"RateLimit": {"SourceCriterion": {"RequestHeaderName": "X-Key", "RequestHost": "true"}}}`,
		`{"RateLimit": {"SourceCriterion": {"RequestPath": "/a/{b}/*", "RequestCookieName": "c", "RequestMethod": "1", "MissingSource": "deny"}}}`,
		`{"RateLimit": {"SourceCriterion": {"RequestQueryName": "a&b", "RequestJWTClaim": "a.b", "All": "true", "MissingSource": "none"}}}`,
		`{"CircuitBreaker": {"FailureThreshold": "-1", "ResetTimeout": "1e3s", "HalfOpenMaxProbes": "1001", "ProbeTimeout": "1ns"}}`,
		`{"Redis": {"Address": "redis://:pa55@redis:6379/1,x", "DB": "0x1", "Timeout": ".5", "OnError": "Local", "KeyPrefix": "a{b}"}}`,
		`{"Redis": {"Address": "[::1]:6379", "Username": "u", "TLS": {"Enabled": "1", "ServerName": "r"}}, "Health": {"Path": "/h?"}}`,
		`{"Unknown": {"ratelimits": 1, "": null}, "Redis": {"Unknown": {"adress": []}}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		config := CreateConfig()
		if json.Unmarshal(text, config) != nil || readsFiles(config) {
			return
		}
		s, err := readConfig(config, "m@file")
		if err != nil {
			require.NotContains(t, err.Error(), "\n")
			require.Regexp(t, `[A-Za-z]: `, err.Error())
			return
		}
		requireUsable(t, s)
	})
}

// readsFiles reports whether the configuration names files, whose content the fuzzer does not choose.
func readsFiles(c *Config) bool {
	return c.Redis != nil && (c.Redis.PasswordFile != "" || c.Redis.TLS != nil && c.Redis.TLS.CA+c.Redis.TLS.Cert+c.Redis.TLS.Key != "")
}

func requireUsable(t *testing.T, s *settings) {
	require.True(t, isName(s.name), s.name)
	require.True(t, isName(s.redis.KeyPrefix) || s.redis.KeyPrefix == "", s.redis.KeyPrefix)
	require.True(t, s.redis.Address == "" || isAddress(s.redis.Address), s.redis.Address)
	require.True(t, s.redis.Address == "" || s.redis.Timeout > 0 && s.redis.DialTimeout > 0)
	require.False(t, s.health != "" && !strings.HasPrefix(s.health, "/"), s.health)
	require.Contains(t, []string{onErrorLocal, onErrorAllow, onErrorDeny}, s.onError)
	require.LessOrEqual(t, s.redis.Timeout, maxDuration)
	r := httptest.NewRequest(http.MethodGet, "/a/b?c=d", nil)
	require.Regexp(t, `^[a-z-]+:[A-Za-z0-9.:_-]*$`, identity.Name(identity.KeyOf(s.keySource)(r)))
	if s.limit != nil {
		// The bucket's arithmetic holds: a full bucket lets a request pass at any time.
		for _, now := range []int64{0, 1, time.Hour.Microseconds(), maxDuration.Microseconds()} {
			require.Equal(t, int64(1), ratelimit.AllowLocal(newLimiter(s), "key", s.limit, now))
		}
	}
}

func newLimiter(s *settings) *ratelimit.Limiter {
	g := newRegistry(0)
	g.mu.Lock()
	defer g.mu.Unlock()
	return newEnginesLocked(g, s).limiter
}
