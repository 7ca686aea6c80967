//go:build yaegi

package breaker

// modelSteps is how far the scripts and the interpreted model are compared; the compiled one goes further.
const modelSteps = 20000
