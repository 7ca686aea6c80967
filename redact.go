package resilience

import "github.com/resilient-gateway/resilience/identity"

// redact returns a client's key as a log may show it: what a client sent may be a credential.
func redact(key string) string { return identity.Shown(key) }
