package interpreted

import (
	"reflect"

	"github.com/resilient-gateway/resilience/internal/bucketmodel"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/resilient-gateway/resilience/internal/statuswriter"
	"github.com/resilient-gateway/resilience/internal/statuswriter/recovery"
	"github.com/stretchr/testify/require"
	"github.com/traefik/yaegi/interp"
)

// compiled is what the tests use that the interpreter cannot run: testify, the servers that they start, the
// model that a script is held against, and a writer such as Traefik's.
var compiled = interp.Exports{
	"github.com/stretchr/testify/require/require": {
		"Contains":        reflect.ValueOf(require.Contains),
		"Empty":           reflect.ValueOf(require.Empty),
		"Equal":           reflect.ValueOf(require.Equal),
		"Equalf":          reflect.ValueOf(require.Equalf),
		"EqualError":      reflect.ValueOf(require.EqualError),
		"Error":           reflect.ValueOf(require.Error),
		"ErrorContains":   reflect.ValueOf(require.ErrorContains),
		"ErrorIs":         reflect.ValueOf(require.ErrorIs),
		"Eventually":      reflect.ValueOf(require.Eventually),
		"Fail":            reflect.ValueOf(require.Fail),
		"FailNow":         reflect.ValueOf(require.FailNow),
		"False":           reflect.ValueOf(require.False),
		"Falsef":          reflect.ValueOf(require.Falsef),
		"Greater":         reflect.ValueOf(require.Greater),
		"GreaterOrEqual":  reflect.ValueOf(require.GreaterOrEqual),
		"InDelta":         reflect.ValueOf(require.InDelta),
		"Len":             reflect.ValueOf(require.Len),
		"Less":            reflect.ValueOf(require.Less),
		"LessOrEqual":     reflect.ValueOf(require.LessOrEqual),
		"Nil":             reflect.ValueOf(require.Nil),
		"NoError":         reflect.ValueOf(require.NoError),
		"NotContains":     reflect.ValueOf(require.NotContains),
		"NotEmpty":        reflect.ValueOf(require.NotEmpty),
		"NotEqual":        reflect.ValueOf(require.NotEqual),
		"NotNil":          reflect.ValueOf(require.NotNil),
		"NotPanics":       reflect.ValueOf(require.NotPanics),
		"NotSame":         reflect.ValueOf(require.NotSame),
		"NotZero":         reflect.ValueOf(require.NotZero),
		"Panics":          reflect.ValueOf(require.Panics),
		"PanicsWithValue": reflect.ValueOf(require.PanicsWithValue),
		"Regexp":          reflect.ValueOf(require.Regexp),
		"Same":            reflect.ValueOf(require.Same),
		"True":            reflect.ValueOf(require.True),
		"Truef":           reflect.ValueOf(require.Truef),
		"Zero":            reflect.ValueOf(require.Zero),
	},
	"github.com/resilient-gateway/resilience/internal/bucketmodel/bucketmodel": {
		"New": reflect.ValueOf(bucketmodel.New),
	},
	"github.com/resilient-gateway/resilience/internal/redistest/redistest": {
		"Cluster":       reflect.ValueOf((*redistest.Cluster)(nil)),
		"Connect":       reflect.ValueOf(redistest.Connect),
		"Elapse":        reflect.ValueOf(redistest.Elapse),
		"FreePort":      reflect.ValueOf(redistest.FreePort),
		"Group":         reflect.ValueOf((*redistest.Group)(nil)),
		"Late":          reflect.ValueOf(redistest.Late),
		"MasterName":    reflect.ValueOf(redistest.MasterName),
		"NewRelay":      reflect.ValueOf(redistest.NewRelay),
		"Relay":         reflect.ValueOf((*redistest.Relay)(nil)),
		"Server":        reflect.ValueOf((*redistest.Server)(nil)),
		"Slowly":        reflect.ValueOf(redistest.Slowly),
		"Start":         reflect.ValueOf(redistest.Start),
		"StartCluster":  reflect.ValueOf(redistest.StartCluster),
		"StartGroup":    reflect.ValueOf(redistest.StartGroup),
		"StartSentinel": reflect.ValueOf(redistest.StartSentinel),
		"Step":          reflect.ValueOf((*redistest.Step)(nil)),
	},
	"github.com/resilient-gateway/resilience/internal/statuswriter/statuswriter": {
		"Answers":   reflect.ValueOf(statuswriter.Answers),
		"New":       reflect.ValueOf(statuswriter.New),
		"NewFaulty": reflect.ValueOf(statuswriter.NewFaulty),
		"NewMute":   reflect.ValueOf(statuswriter.NewMute),
		"NewSized":  reflect.ValueOf(statuswriter.NewSized),
		"Notifying": reflect.ValueOf(statuswriter.Notifying),
		"Serve":     reflect.ValueOf(statuswriter.Serve),
		"Wrappers":  reflect.ValueOf(statuswriter.Wrappers),
	},
	"github.com/resilient-gateway/resilience/internal/statuswriter/recovery/recovery": {
		"Wrap": reflect.ValueOf(recovery.Wrap),
	},
}
