//go:build !yaegi

package resilience

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzRules checks that any rateLimit block is either refused, with a message of one line that names a key, or makes a middleware that
// answers any request.
func FuzzRules(f *testing.F) {
	for _, seed := range []string{
		`{"Limits": {"hourly": {"Capacity": "5", "RefillPeriod": "1h"}, "everyone": {"SourceCriterion": {"All": "true"}}, "none": null}}`,
		`{"Capacity": "9", "Limits": {"logins": {"Capacity": "2", "Match": {"Paths": ["/login*", "/a.b+(c)"], "Methods": ["POST"]}, "ChargeStatus": "401,403-405"}}}`,
		`{"Limits": {"a\nb": {"Match": {"Hosts": ["*.example", "[::1]", "a:1"], "Headers": {"x-a": "*b*", "X-A": "", "Host": "c"}}, "Unknown": {"d\n": 1}}}}`,
		`{"Tiers": {"a": {"Priority": "1.0", "Match": {"ClientIPs": ["10.0.0.0/8", "::ffff:10.0.0.0/104", "x"]}, "Deny": "1"}, "b": {"Unlimited": "true"}, "c": null}}`,
		`{"Capacity": "9", "Cost": {"Header": "X-Cost", "Max": "9", "Methods": {"GET": "2"}, "Paths": {"/": "3", "*": "4"}}, "ResponseHeaders": "both"}`,
		`{"Limits": {"k": {"SourceCriterion": {"RequestHeaderName": "X-A,X-B", "RequestPath": "/{a}/*", "MissingSource": "deny"}}}, "DryRun": "true"}`,
	} {
		f.Add([]byte(seed), "POST", "/login?a=b", "shop.example:80", "10.1.2.3:4", "7")
	}
	f.Fuzz(func(t *testing.T, text []byte, method, target, host, address, value string) {
		limit := &RateLimitConfig{}
		if json.Unmarshal(text, limit) != nil {
			return
		}
		config := &Config{RateLimit: limit}
		if _, err := readConfig(config, "m@file"); err != nil {
			require.NotContains(t, err.Error(), "\n")
			require.Regexp(t, `rateLimit[.:]`, err.Error())
			return
		}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		handler, err := New(ctx, status(http.StatusUnauthorized), config, "m@file")
		require.NoError(t, err)
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		if parsed, err := r.URL.Parse(target); err == nil {
			r.URL = parsed
		}
		r.Method, r.Host, r.RemoteAddr = method, host, address
		r.Header = http.Header{"X-Cost": {value}, "X-A": {value, host}, "X-B": {value}, "X-Forwarded-For": {address}}
		for i := 0; i < 3; i++ {
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, r)
			require.Contains(t, []int{401, 403, 429}, w.Code)
		}
	})
}
