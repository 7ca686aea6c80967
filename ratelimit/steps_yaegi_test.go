//go:build yaegi

package ratelimit

// modelSteps is how many steps of the script and the interpreted model are compared, fewer than with the compiled model.
const modelSteps = 20000

// verdictSteps is how many verdicts are compared with recorded ones.
const verdictSteps = 20000

// largestBurst is the largest capacity that several interpreted gateways spend at once.
const largestBurst = 20000
