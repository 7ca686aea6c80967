package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/harness/truth"
	"github.com/stretchr/testify/require"
)

// truthSeeds are those of runs that found something, and of a few more. TEST_SEED adds one.
var truthSeeds = []struct {
	seed     uint64
	gateways int
	why      string
}{
	{seed: 1, gateways: 2, why: "a gateway is killed while others go on"},
	{seed: 3, gateways: 3, why: "Redis is killed and emptied"},
}

func TestTruth(t *testing.T) {
	rows := truthSeeds
	if seed := testSeed(); seed != 0 {
		rows = append(rows, truthSeeds[0])
		rows[len(rows)-1].seed = seed
	}
	for _, row := range rows {
		t.Run(fmt.Sprint("seed ", row.seed), func(t *testing.T) {
			t.Parallel()
			report := truth.Run(t, truth.Options{
				Root: root(t), Seed: row.seed, Gateways: row.gateways, Clients: 12, Length: 18 * time.Second, Gap: 500 * time.Millisecond,
			})
			t.Logf("\n%s", report)
			require.Empty(t, report.Wrong, "seed %d", row.seed)
		})
	}
}
