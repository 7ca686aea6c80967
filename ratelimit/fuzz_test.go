//go:build !yaegi

package ratelimit

import (
	"testing"

	"github.com/resilient-gateway/resilience/internal/redistest"
)

// FuzzScript looks for walks on which the script and the model disagree. testdata keeps its findings.
func FuzzScript(f *testing.F) {
	server := redistest.Start(f)
	for seed := int64(0); seed < 20; seed++ {
		f.Add(seed, uint16(200))
	}
	f.Fuzz(func(t *testing.T, seed int64, length uint16) {
		agree(t, server.For(t), seed, int(length)%2000+1)
	})
}
