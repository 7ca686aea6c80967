//go:build race

package resilience

// The current handler is read while it is replaced, on purpose.
func init() { switchEnabled = false }
