package resilience

import (
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/breaker"
	"github.com/stretchr/testify/require"
)

func TestRead_breakerRules(t *testing.T) {
	byDefault := breaker.NewPolicy(5, 30*time.Second, 2, 2, 10*time.Second)
	for _, row := range []struct {
		config CircuitBreakerConfig
		want   breaker.Rules
		text   string
	}{
		{CircuitBreakerConfig{FailureAge: "0s", HalfOpenFailureThreshold: "1", ResetBackoff: "1.000000", ResetJitter: "0"}, breaker.Rules{}, ""},
		{CircuitBreakerConfig{FailureAge: "1m"}, breaker.Rules{FailureAge: time.Minute}, "; failures count for 1m0s"},
		{CircuitBreakerConfig{HalfOpenFailureThreshold: "3"}, breaker.Rules{HalfOpenFailures: 3}, "; opens again after 3 failed probes"},
		{CircuitBreakerConfig{ResetBackoff: "1.5"}, breaker.Rules{Backoff: 1500, MaxReset: 10 * time.Minute}, "; each time 1.5 times longer, up to 10m0s"},
		{CircuitBreakerConfig{ResetBackoff: "10", MaxResetTimeout: "30s"}, breaker.Rules{Backoff: 10000, MaxReset: 30 * time.Second},
			"; each time 10 times longer, up to 30s"},
		{CircuitBreakerConfig{ResetBackoff: "1.125000", MaxResetTimeout: "1h"}, breaker.Rules{Backoff: 1125, MaxReset: time.Hour},
			"; each time 1.125 times longer, up to 1h0m0s"},
		{CircuitBreakerConfig{ResetJitter: "10"}, breaker.Rules{Jitter: 10}, "; up to 10% longer at random"},
	} {
		s := mustRead(t, &Config{CircuitBreaker: &row.config})
		require.Equal(t, byDefault.With(row.want), s.policy, row.text)
		require.Equal(t, "circuit breaker: opens after 5 failures, for 30s; closes after 2 successes, of 2 probes at once, each within 10s"+row.text, s.parts[0])
	}
}

func TestRead_reportsInvalidBreakerRules(t *testing.T) {
	const factor = ` is not 1, or a factor from 1.1 to 10 with at most three decimals, such as "1.5"`
	for _, row := range []struct {
		config  CircuitBreakerConfig
		message string
	}{
		{CircuitBreakerConfig{FailureAge: "500ms"},
			`circuitBreaker.failureAge: "500ms" is out of bounds; write a duration from 1s to 10000d, in whole microseconds`},
		{CircuitBreakerConfig{HalfOpenFailureThreshold: "0"},
			`circuitBreaker.halfOpenFailureThreshold: "0" is not a whole number from 1 to 1000000000`},
		{CircuitBreakerConfig{ResetBackoff: "0"}, `circuitBreaker.resetBackoff: "0"` + factor},
		{CircuitBreakerConfig{ResetBackoff: "1.05"}, `circuitBreaker.resetBackoff: "1.05"` + factor},
		{CircuitBreakerConfig{ResetBackoff: "10.5"}, `circuitBreaker.resetBackoff: "10.5"` + factor},
		{CircuitBreakerConfig{ResetBackoff: "1.23456"}, `circuitBreaker.resetBackoff: "1.23456"` + factor},
		{CircuitBreakerConfig{ResetBackoff: "NaN"}, `circuitBreaker.resetBackoff: "NaN"` + factor},
		{CircuitBreakerConfig{ResetBackoff: "2x"}, `circuitBreaker.resetBackoff: "2x"` + factor},
		{CircuitBreakerConfig{MaxResetTimeout: "1h"},
			"circuitBreaker.maxResetTimeout: it has no effect without resetBackoff; write that too, or leave it out"},
		{CircuitBreakerConfig{ResetBackoff: "2", MaxResetTimeout: "10s"},
			"circuitBreaker.maxResetTimeout: 10s is less than resetTimeout, 30s; write a longer time"},
		{CircuitBreakerConfig{ResetBackoff: "2", ResetTimeout: "1h"},
			"circuitBreaker.maxResetTimeout: 10m0s is less than resetTimeout, 1h0m0s; write a longer time"},
		{CircuitBreakerConfig{ResetJitter: "101"}, `circuitBreaker.resetJitter: "101" is not a whole number from 0 to 100`},
	} {
		row := row
		t.Run(row.message, func(t *testing.T) {
			requireProblem(t, &Config{CircuitBreaker: &row.config}, row.message)
		})
	}
}
