//go:build !yaegi

package ratelimit

// modelSteps is how far the script and the model are compared.
const modelSteps = 1000000
