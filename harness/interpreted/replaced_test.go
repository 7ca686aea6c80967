package interpreted

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/traefik/yaegi/interp"
	"github.com/traefik/yaegi/stdlib"
)

// service is what requests are forwarded to. It has a size, so that Go's finalizers know it.
type service struct{ answered atomic.Int64 }

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.answered.Add(1) }

// TestReplaced_handlersAreForgotten replaces the handlers of a configuration again and again, as a reload does. The last ones, the ones before
// and one of each generation may stay in memory. In the interpreter a closure keeps the frame that it was made in, and those of all callers
// (R10): one that leads to the handlers before keeps all of them.
func TestReplaced_handlersAreForgotten(t *testing.T) {
	create := factory(t)
	const generations, routers = 12, 3
	var collected atomic.Int64
	cancel := func() {}
	for range generations {
		cancel()
		var ctx context.Context
		ctx, cancel = context.WithCancel(context.Background())
		for range routers {
			next := &service{}
			runtime.SetFinalizer(next, func(*service) { collected.Add(1) })
			handler := create(ctx, next, "shop", func(config reflect.Value) {
				set(config, "1000", "RateLimit", "Capacity")
				set(config, "5", "CircuitBreaker", "FailureThreshold")
			})
			handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
		}
	}
	defer func() { cancel(); t.Logf("%d of %d are forgotten", collected.Load(), generations*routers) }()
	require.Eventually(t, func() bool {
		runtime.GC()
		return collected.Load() >= (generations-2)*(routers-1)
	}, 5*time.Second, 50*time.Millisecond)
}

// factory loads the bundle as Traefik does, and returns what makes a middleware of it.
func factory(t *testing.T) func(ctx context.Context, next http.Handler, name string, change func(config reflect.Value)) http.Handler {
	dist := t.TempDir()
	command := exec.Command("go", "run", "./bundle", dist)
	command.Dir = "../.."
	out, err := command.CombinedOutput()
	require.NoError(t, err, string(out))
	i := interp.New(interp.Options{GoPath: filepath.Join(dist, "plugins-local"), Env: os.Environ()})
	require.NoError(t, i.Use(stdlib.Symbols))
	_, err = i.Eval(`import "github.com/resilient-gateway/resilience"`)
	require.NoError(t, err)
	createConfig, err := i.Eval("resilience.CreateConfig")
	require.NoError(t, err)
	create, err := i.Eval("resilience.New")
	require.NoError(t, err)
	return func(ctx context.Context, next http.Handler, name string, change func(config reflect.Value)) http.Handler {
		config := createConfig.Call(nil)[0]
		change(config)
		made := create.Call([]reflect.Value{reflect.ValueOf(ctx), reflect.ValueOf(next), config, reflect.ValueOf(name)})
		require.Nil(t, made[1].Interface())
		return made[0].Interface().(http.Handler)
	}
}
