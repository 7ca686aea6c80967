//go:build race

package resilience

// A front is read while it is turned, on purpose.
func init() { turning = false }
