package soak

import (
	"flag"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/harness/standing"
	"github.com/stretchr/testify/require"
)

var standingLength = flag.Duration("standing", 2*time.Minute, "how long gateways with standing leases are killed and started")

// TestStanding holds four gateways with standing leases to limits from 101 to 100,000, while gateways are killed and started.
func TestStanding(t *testing.T) {
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	t.Logf("seed %d", *seed)
	report := standing.Run(t, standing.Options{Root: root, Seed: *seed, Gateways: 4, Length: *standingLength, Gap: *gap})
	t.Logf("the report on standing leases\n%s", report)
	require.Empty(t, report.Wrong)
	require.Positive(t, report.Kills, "gateways killed")
	for _, judged := range report.Judged {
		if judged.Capacity >= 1000 { // of a smaller limit few gateways have standing tokens, and those may be killed
			require.Positive(t, judged.Standing, "no standing token of a limit of %d was used", judged.Capacity)
		}
		require.Greater(t, judged.Most, 0.9*float64(judged.Capacity), "no client of a limit of %d came near it", judged.Capacity)
	}
}
