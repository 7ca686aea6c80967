//go:build !yaegi

package ratelimit

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/resilient-gateway/resilience/internal/store"
	"github.com/stretchr/testify/require"
)

// BenchmarkTake_onRedis measures what a call costs Redis's one core, by the number of keys in it: how much one name can carry.
func BenchmarkTake_onRedis(b *testing.B) {
	server := redistest.Start(b)
	s := store.New(store.Settings{Address: server.Addr(), Timeout: 5 * time.Second, DialTimeout: time.Second, KeyPrefix: "test"}, func(error) {})
	b.Cleanup(s.Close)
	for _, keys := range []int{1, 8, 32} {
		b.Run(fmt.Sprint(keys, "_keys"), func(b *testing.B) {
			before := coreTime(b, server)
			for i := 0; i < b.N; i++ {
				call := &store.Call{Script: script, Number: keys}
				for k := 0; k < keys; k++ {
					call.Words = append(call.Words, store.Word(fmt.Sprintf("test:{name}:bucket:ip:10.0.%d.%d", (i*keys+k)/250%250, (i*keys+k)%250)))
				}
				call.Words = append(call.Words, store.Word("100 10 1000000"), store.Word(allWords))
				require.NoError(b, s.Run([]*store.Call{call}, time.Now().Add(5*time.Second)))
				require.NoError(b, call.Err)
			}
			spent := (coreTime(b, server) - before) / float64(b.N)
			b.ReportMetric(spent*1e6, "core-µs/call")
			b.ReportMetric(0.9/spent, "calls/s-at-90%")
			b.ReportMetric(0.9/spent*float64(keys), "keys/s-at-90%")
		})
	}
}

// coreTime returns the CPU time that a server has used, in seconds.
func coreTime(b *testing.B, server *redistest.Server) (seconds float64) {
	for _, line := range strings.Split(server.Text("INFO", "cpu"), "\r\n") {
		for _, name := range []string{"used_cpu_sys:", "used_cpu_user:"} {
			if text, ok := strings.CutPrefix(line, name); ok {
				n, err := strconv.ParseFloat(text, 64)
				require.NoError(b, err)
				seconds += n
			}
		}
	}
	return seconds
}
