package ratelimit

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func numbered(i int) string {
	return string([]byte{byte(i), byte(i >> 8), byte(i >> 16)})
}

func TestTable_evictsPreviousGeneration(t *testing.T) {
	l := New(Settings{})
	hot := &Lease{}
	insertLocked(l, "hot", hot)
	for i := 0; i < 3*maxKeys; i++ {
		insertLocked(l, numbered(i), &Lease{})
		if i%1000 == 0 {
			require.Same(t, hot, lookupLocked(l, "hot"), "what is asked for stays")
		}
	}
	require.LessOrEqual(t, len(l.recent)+len(l.previous), maxKeys)
	require.Nil(t, lookupLocked(l, numbered(0)))
	require.NotNil(t, lookupLocked(l, numbered(3*maxKeys-1)))
}
