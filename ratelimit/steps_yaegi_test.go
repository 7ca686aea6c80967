//go:build yaegi

package ratelimit

// modelSteps is how far the script and the interpreted model are compared; the compiled one goes further.
const modelSteps = 20000

// verdictSteps is for how many requests the verdicts are compared with the recorded ones.
const verdictSteps = 20000
