package breaker

import (
	"math/rand"
	"strconv"
)

// withArgs returns a script's arguments: the policy's, then the script's own.
func withArgs(policy *Policy, own ...string) []string {
	args := make([]string, 0, len(policy.args)+len(own))
	args = append(args, policy.args...)
	return append(args, own...)
}

// newCallID returns an id that no other call has. It does not look like a number.
func newCallID() string {
	return "c" + strconv.FormatInt(rand.Int63(), 36)
}

func boolArg(on bool) string {
	if on {
		return "1"
	}
	return "0"
}

func intArg(n int64) string {
	return strconv.FormatInt(n, 10)
}
