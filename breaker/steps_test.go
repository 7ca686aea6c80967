//go:build !yaegi

package breaker

// modelSteps is how many random steps scripts and model are compared on, unless BREAKER_STEPS says so.
const modelSteps = 50000
