package resilience

import (
	"testing"

	"github.com/resilient-gateway/resilience/identity"
	"github.com/stretchr/testify/require"
)

func TestRedact_hidesWhatMayBeACredential(t *testing.T) {
	require.Equal(t, "ip:192.0.2.1", redact("ip:192.0.2.1"))
	require.Equal(t, "host:shop.example", redact("host:shop.example"))
	require.Equal(t, "none:", redact("none:"))
	require.Equal(t, "header:sha256:2bb80d537b1d", redact("header:secret"))
	require.Equal(t, "method:GET", redact("method:GET"))
	require.Equal(t, "all:", redact("all:"))
	require.Equal(t, "address:192.0.2.1", redact("address:192.0.2.1"))
	for _, kind := range []string{"cookie:", "query:", "claim:", "path:", "ip-header:"} {
		hashed := identity.Hash("session=secret")
		require.Equal(t, kind+"sha256:"+hashed[:12], redact(kind+hashed), "the beginning of what Redis has")
	}
	require.Equal(t, redact("header:a"), redact("header:a"))
	require.NotEqual(t, redact("header:a"), redact("header:b"))
}
