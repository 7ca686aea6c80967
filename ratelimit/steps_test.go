//go:build !yaegi

package ratelimit

// modelSteps is how many steps of the script and the model are compared.
const modelSteps = 1000000

// verdictSteps is how many verdicts are compared with recorded ones.
const verdictSteps = 1000000
