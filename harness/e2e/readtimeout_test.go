package e2e

import "github.com/resilient-gateway/resilience/harness/gateway"

// withReadTimeout sets the readTimeout of the public entry point.
func withReadTimeout(limit string) func(static map[string]any) {
	return func(static map[string]any) {
		gateway.Set(static, limit, "entryPoints", "web", "transport", "respondingTimeouts", "readTimeout")
	}
}
