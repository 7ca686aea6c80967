package interpreted

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
	"github.com/traefik/yaegi/interp"
	"github.com/traefik/yaegi/stdlib"
)

// BenchmarkServeHTTP is what one request costs in the interpreter alone, with a lease in hand.
func BenchmarkServeHTTP(b *testing.B) {
	server := redistest.Start(b)
	dist := b.TempDir()
	command := exec.Command("go", "run", "./bundle", dist)
	command.Dir = "../.."
	out, err := command.CombinedOutput()
	require.NoError(b, err, string(out))
	i := interp.New(interp.Options{GoPath: filepath.Join(dist, "plugins-local"), Env: os.Environ()})
	require.NoError(b, i.Use(stdlib.Symbols))
	_, err = i.Eval(`import "github.com/resilient-gateway/resilience"`)
	require.NoError(b, err)
	createConfig, err := i.Eval("resilience.CreateConfig")
	require.NoError(b, err)
	newMiddleware, err := i.Eval("resilience.New")
	require.NoError(b, err)

	for _, row := range []struct {
		name           string
		limit, circuit bool
	}{{"nothing", false, false}, {"limit", true, false}, {"circuit", false, true}, {"both", true, true}} {
		b.Run(row.name, func(b *testing.B) {
			config := createConfig.Call(nil)[0]
			set(config, "Redis", "Address", server.Addr())
			if row.limit {
				set(config, "RateLimit", "Capacity", "1000000")
				config.Elem().FieldByName("RateLimit").Elem().FieldByName("RefillRate").SetString("1000000")
			}
			if row.circuit {
				set(config, "CircuitBreaker", "FailureThreshold", "5")
			}
			next := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(200) })
			results := newMiddleware.Call([]reflect.Value{
				reflect.ValueOf(context.Background()), reflect.ValueOf(http.Handler(next)), config, reflect.ValueOf("bench@file"),
			})
			require.Nil(b, results[1].Interface())
			handler := results[0].Interface().(http.Handler)
			request := httptest.NewRequest("GET", "/ok", nil)
			w := &nothing{header: http.Header{}}
			for range 2000 {
				handler.ServeHTTP(w, request)
			}
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				handler.ServeHTTP(w, request)
			}
		})
	}
}

func set(config reflect.Value, block, field, value string) {
	pointer := config.Elem().FieldByName(block)
	if pointer.IsNil() {
		pointer.Set(reflect.New(pointer.Type().Elem()))
	}
	pointer.Elem().FieldByName(field).SetString(value)
}

// nothing is a ResponseWriter that costs nothing.
type nothing struct{ header http.Header }

func (n *nothing) Header() http.Header         { return n.header }
func (n *nothing) Write(p []byte) (int, error) { return len(p), nil }
func (n *nothing) WriteHeader(int)             {}
func (n *nothing) Status() int                 { return 200 }
