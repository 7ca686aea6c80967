//go:build !yaegi

package breaker

// modelSteps is how many random steps scripts and model are compared on.
const modelSteps = 1000000
