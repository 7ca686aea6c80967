package main

import (
	"image/png"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// The icon in the repository is the one that this command draws. A compiler may round in another way.
func TestIcon_isTheOneInTheRepository(t *testing.T) {
	file, err := os.Open("../../.assets/icon.png")
	require.NoError(t, err)
	defer file.Close()
	kept, err := png.Decode(file)
	require.NoError(t, err)
	drawn := draw()
	require.Equal(t, drawn.Bounds(), kept.Bounds())
	for y := 0; y < size; y++ {
		for x := 0; x < size; x++ {
			r, g, b, a := drawn.At(x, y).RGBA()
			keptR, keptG, keptB, keptA := kept.At(x, y).RGBA()
			for i, d := range []int{int(r) - int(keptR), int(g) - int(keptG), int(b) - int(keptB), int(a) - int(keptA)} {
				require.InDelta(t, 0, d, 0x0800, "channel %d at %d, %d", i, x, y)
			}
		}
	}
}

func TestDraw_hasACircuitABucketAndTokens(t *testing.T) {
	icon := draw()
	for _, row := range []struct {
		x, y int
		want any
	}{
		{0, 0, nothing}, {128, 10, background}, {32, 128, circuit}, {128, 181, bucket}, {128, 160, token},
		{218, 77, circuit}, {196, 58, background}, // a contact, and the gap
	} {
		require.Equal(t, row.want, icon.NRGBAAt(row.x, row.y), "%d, %d", row.x, row.y)
	}
}
