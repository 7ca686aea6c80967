package e2e

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// What a gateway does in the background again and again leaves nothing behind: it counts successes for a ratio, asks about an open circuit, and
// looks for a Redis that is unavailable. Chains of timers did: 2.4 MB in the time of this test, and the same again for ever.
func TestBackground_leavesNothingBehind(t *testing.T) {
	t.Parallel() // it waits for long
	up, server := startUpstream(t), redistest.Start(t)
	routers, want := block{}, map[string]int{}
	middlewares := block{"strip": block{"stripPrefixRegex": block{"regex": []string{"/(ratio|open|none)[0-9]"}}}}
	for i := range 6 { // so that it is seen among what Traefik itself needs
		for kind, plugin := range map[string]block{
			"ratio": {"redis": redisBlock(server), "circuitBreaker": block{"failureRatio": 50}},
			"open":  {"redis": redisBlock(server), "circuitBreaker": block{"failureThreshold": 1, "resetTimeout": "1h"}},
			"none":  {"redis": block{"address": fmt.Sprint("127.0.0.1:", i+1)}, "circuitBreaker": block{"failureThreshold": 5}},
		} {
			name := fmt.Sprint(kind, i)
			plugin["name"] = name
			middlewares[name] = block{"plugin": block{"resilience": plugin}}
			routers[name] = block{
				"rule": "PathPrefix(`/" + name + "/`)", "entryPoints": []string{"web"}, "middlewares": []string{name, "strip"}, "service": "upstream",
			}
			want[name] = map[string]int{"ratio": 200, "open": 503, "none": 200}[kind]
		}
	}
	g := startReloadable(t, up, block{"routers": routers, "middlewares": middlewares})
	for i := range 6 {
		require.Equal(t, http.StatusInternalServerError, g.get(fmt.Sprintf("/open%d/fail", i)).status)
	}
	ask := func(length time.Duration) {
		end := time.Now().Add(length)
		var done sync.WaitGroup
		for name, want := range want {
			done.Go(func() {
				for time.Now().Before(end) {
					if got := g.get("/" + name + "/ok").status; got != want {
						t.Errorf("%s: %d instead of %d", name, got, want)
						return
					}
					time.Sleep(100 * time.Millisecond)
				}
			})
		}
		done.Wait()
	}
	ask(5 * time.Second) // what the first ones cost stays
	before := g.heap()
	ask(20 * time.Second)
	grown := g.heap() - before
	t.Logf("%d KB more", grown>>10)
	require.Less(t, grown, int64(1536<<10))
}
