//go:build yaegi

package breaker

// modelSteps is how many random steps scripts and interpreted model are compared on. The compiled one takes more.
const modelSteps = 10000
