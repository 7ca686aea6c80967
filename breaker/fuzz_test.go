//go:build !yaegi

package breaker

import (
	"testing"

	"github.com/resilient-gateway/resilience/internal/redistest"
)

// FuzzScripts looks for walks on which scripts and model differ. Those it found are kept below testdata.
func FuzzScripts(f *testing.F) {
	server := redistest.Start(f)
	for seed := int64(0); seed < 20; seed++ {
		f.Add(seed, uint16(200))
	}
	f.Fuzz(func(t *testing.T, seed int64, length uint16) {
		agree(t, server.For(t), seed, int(length)%2000+1, map[int64]int{})
	})
}
