package resilience

import (
	"strings"

	"github.com/resilient-gateway/resilience/identity"
)

// redact returns a client's key as a log may show it: a header's value may be a credential.
func redact(key string) string {
	const header = "header:"
	key = identity.Name(key)
	if strings.HasPrefix(key, header) {
		return header + "sha256:" + identity.Hash(key[len(header):])[:12]
	}
	return key
}
