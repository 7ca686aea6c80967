package store

import (
	"testing"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

func TestSlotOf_isThatOfRedis(t *testing.T) {
	node := redistest.Start(t, "--cluster-enabled", "yes", "--cluster-port", redistest.FreePort(t))
	for _, key := range []string{"", "a", "123456789", "{gateway}", "resilience:{gateway}:breaker", "a{}b", "a{b", "}a{b}", "{{a}}", "ä{ö}ü", "{a}{b}"} {
		require.Equal(t, int(node.Int("CLUSTER", "KEYSLOT", key)), slotOf(key), key)
	}
}
