//go:build !yaegi

package ratelimit

// modelSteps is how far the script and the model are compared.
const modelSteps = 1000000

// verdictSteps is for how many requests the verdicts are compared with the recorded ones.
const verdictSteps = 1000000
