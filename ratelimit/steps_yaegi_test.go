//go:build yaegi

package ratelimit

// modelSteps is how far the script and the interpreted model are compared; the compiled one goes further.
const modelSteps = 20000
