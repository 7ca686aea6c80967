// Package soak runs a fleet for long while everything around it fails: make soak.
package soak

import (
	"flag"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/harness/truth"
	"github.com/stretchr/testify/require"
)

var (
	length   = flag.Duration("length", 10*time.Minute, "how long")
	gap      = flag.Duration("gap", 3*time.Second, "between one fault and the next, about")
	gateways = flag.Int("gateways", 2, "how many")
	clients  = flag.Int("clients", 12, "how many")
	faults   = flag.Int("faults", 1, "how many there must be at least")
	seed     = flag.Uint64("seed", 0, "of what is left to chance; 0: another each time")
)

func TestSoak(t *testing.T) {
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	t.Logf("seed %d", *seed)
	report := truth.Run(t, truth.Options{
		Root: root, Seed: *seed, Gateways: *gateways, Clients: *clients, Length: *length, Gap: *gap,
		Progress: func(text string) { t.Log(text) },
	})
	t.Logf("the soak's report\n%s", report)
	require.Empty(t, report.Wrong)
	survived := 0
	for _, n := range report.Faults {
		survived += n
	}
	require.GreaterOrEqual(t, survived, *faults, "faults")
	for _, what := range []string{"buckets", "openings of a closed circuit", "half-open circuits", "refusals"} {
		require.Positive(t, report.Judged[what], "%s: none was judged", what)
	}
}
