//go:build !yaegi

package ratelimit

// modelSteps is how many steps of the script and the model are compared.
const modelSteps = 1000000

// verdictSteps is how many verdicts are compared with recorded ones.
const verdictSteps = 1000000

// largestBurst is the largest capacity that several gateways spend at once.
const largestBurst = 100000
