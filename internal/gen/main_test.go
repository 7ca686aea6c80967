package main

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestGenerate_theFastPathIsUpToDate(t *testing.T) {
	source, err := generate()
	require.NoError(t, err)
	inUse, err := os.ReadFile("../../fastpath_gen.go")
	require.NoError(t, err)
	require.Equal(t, string(source), string(inUse), "run go generate in the root of the module")
}
