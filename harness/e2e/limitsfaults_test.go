package e2e

import (
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/harness/several"
	"github.com/stretchr/testify/require"
)

// TestLimits_underFaults is the short form of what make soak does for longer.
func TestLimits_underFaults(t *testing.T) {
	t.Parallel()
	seed := testSeed()
	if seed == 0 {
		seed = 1
	}
	report := several.Run(t, several.Options{Root: root(t), Seed: seed, Phase: 12 * time.Second, Gap: 1500 * time.Millisecond})
	t.Logf("\n%s", report)
	require.Empty(t, report.Wrong, "seed %d", seed)
}
