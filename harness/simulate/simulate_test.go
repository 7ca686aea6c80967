package simulate

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	seconds = flag.Int("seconds", 24, "virtual seconds a run")
	picture = flag.String("svg", "", "file for a plot")
	numbers = flag.String("json", "", "file for the outcomes")
)

var (
	fleets = []int{1, 10, 100, 1000}
	limits = []limit{{10000, 1000}, {1000, 1000}, {100, 500}, {100, 10}}
)

// TestFleets holds the promises: never above the limit in any window, and a client that asks for all that its limit allows gets it, or nearly
// all.
func TestFleets(t *testing.T) {
	var outcomes []outcome
	for _, l := range limits {
		for _, c := range clients {
			for _, gateways := range fleets {
				name := fmt.Sprintf("capacity %d, %d a second/%s/%d gateways", l.Capacity, l.Rate, c.Name, gateways)
				t.Run(name, func(t *testing.T) {
					var o outcome
					synctest.Test(t, func(*testing.T) {
						o = run(c, l, gateways, time.Duration(*seconds)*time.Second, 1)
					})
					outcomes = append(outcomes, o)
					t.Logf("%d asked, %d allowed, %d admitted; %.2f %% unused, %.2f %% in the second half; %.4f calls a request; most %.1f",
						o.Asked, o.Allowed, o.Admitted, 100*o.unused(), 100*(1-o.Late), o.callsPerRequest(), o.Most)
					require.LessOrEqual(t, o.Most, float64(l.Capacity), "in a window, beyond the rate")
					require.LessOrEqual(t, o.unused(), 1-c.least, "of what is allowed")
					require.GreaterOrEqual(t, o.Late, c.promise, "admitted of what is allowed, in the second half")
				})
			}
		}
	}
	if *numbers != "" {
		text, err := json.MarshalIndent(outcomes, "", "  ")
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(*numbers, append(text, '\n'), 0o644))
	}
	if *picture != "" {
		require.NoError(t, draw(outcomes, limits[0], *picture))
	}
}
