package soak

import (
	"flag"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/harness/several"
	"github.com/stretchr/testify/require"
)

// With this length a client has 1,000 requests an hour.
var phase = flag.Duration("phase", 66670*time.Millisecond, "how long each of the three phases of TestLimits is")

// TestLimits holds two gateways under three limits to each of them while Redis fails.
func TestLimits(t *testing.T) {
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	t.Logf("seed %d", *seed)
	report := several.Run(t, several.Options{Root: root, Seed: *seed, Phase: *phase, Gap: *gap})
	t.Logf("the report on three limits\n%s", report)
	require.Empty(t, report.Wrong)
}
