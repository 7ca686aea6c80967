package e2e

import (
	"os"
	"strconv"
)

// testSeed returns the seed that TEST_SEED asks for, to see a failure again, or 0.
func testSeed() uint64 {
	seed, _ := strconv.ParseUint(os.Getenv("TEST_SEED"), 10, 64)
	return seed
}
