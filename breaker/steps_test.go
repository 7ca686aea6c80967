//go:build !yaegi

package breaker

// modelSteps is how far the scripts and the model are compared.
const modelSteps = 1000000
