package resilience

import (
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// unheardOf is a key that resembles no valid key.
var unheardOf = map[string]interface{}{"qqqqqqqqqqqq": "1"}

func TestCreateConfig_enablesNothing(t *testing.T) {
	config := CreateConfig()

	require.Equal(t, "", config.Name)
	require.True(t, config.Redis == nil)
	require.True(t, config.RateLimit == nil)
	require.True(t, config.CircuitBreaker == nil)
	require.True(t, config.Answers == nil)
	require.True(t, config.Health == nil)
	require.Len(t, config.Unknown, 0)
}

// A key that is added to a block must also be added to the list of its reader. Otherwise its use is an error.
func TestConfig_hasExactlyTheListedKeys(t *testing.T) {
	for _, row := range []struct {
		path   string
		block  interface{}
		config *Config
	}{
		{"", Config{}, &Config{Unknown: unheardOf}},
		{"redis.", RedisConfig{}, &Config{Redis: &RedisConfig{Unknown: unheardOf}}},
		{"redis.tls.", TLSConfig{}, &Config{Redis: &RedisConfig{TLS: &TLSConfig{Unknown: unheardOf}}}},
		{"rateLimit.", RateLimitConfig{}, &Config{RateLimit: &RateLimitConfig{Unknown: unheardOf}}},
		{"rateLimit.sourceCriterion.", SourceCriterionConfig{}, &Config{RateLimit: &RateLimitConfig{
			SourceCriterion: &SourceCriterionConfig{Unknown: unheardOf}}}},
		{"rateLimit.sourceCriterion.ipStrategy.", IPStrategyConfig{}, &Config{RateLimit: &RateLimitConfig{
			SourceCriterion: &SourceCriterionConfig{IPStrategy: &IPStrategyConfig{Unknown: unheardOf}}}}},
		{"circuitBreaker.", CircuitBreakerConfig{}, &Config{CircuitBreaker: &CircuitBreakerConfig{Unknown: unheardOf}}},
		{"answers.", AnswersConfig{}, &Config{Answers: &AnswersConfig{Unknown: unheardOf}}},
		{"answers.denied.", AnswerConfig{}, &Config{Answers: &AnswersConfig{Denied: &AnswerConfig{Unknown: unheardOf}}}},
		{"health.", HealthConfig{}, &Config{Health: &HealthConfig{Unknown: unheardOf}}},
	} {
		row := row
		t.Run("at "+row.path, func(t *testing.T) {
			requireProblem(t, row.config, row.path+"qqqqqqqqqqqq: there is no such key; valid keys: "+keysOf(row.block))
		})
	}
}

func keysOf(block interface{}) string {
	var keys []string
	kind := reflect.TypeOf(block)
	for i := 0; i < kind.NumField(); i++ {
		field := kind.Field(i)
		if field.Tag.Get("mapstructure") != ",remain" {
			keys = append(keys, strings.TrimSuffix(field.Tag.Get("json"), ",omitempty"))
		}
	}
	return strings.Join(keys, ", ")
}
