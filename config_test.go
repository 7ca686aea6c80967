package resilience

import (
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// unheardOf is a key that looks like no valid one.
var unheardOf = map[string]interface{}{"qqqqqqqqqqqq": "1"}

func TestCreateConfig_switchesNothingOn(t *testing.T) {
	config := CreateConfig()

	require.Equal(t, "", config.Name)
	require.True(t, config.Redis == nil)
	require.True(t, config.RateLimit == nil)
	require.True(t, config.CircuitBreaker == nil)
	require.True(t, config.Health == nil)
	require.Len(t, config.Unknown, 0)
}

// Whoever adds a key to a block must add it to those that the block's reader knows, or it is an error to use it.
func TestConfig_hasTheKeysThatAreSaidToBeValid(t *testing.T) {
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
		{"health.", HealthConfig{}, &Config{Health: &HealthConfig{Unknown: unheardOf}}},
	} {
		row := row
		t.Run("at "+row.path, func(t *testing.T) {
			_, err := readConfig(row.config, "gateway")

			require.EqualError(t, err, row.path+"qqqqqqqqqqqq: there is no such key; valid keys: "+keysOf(row.block))
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
