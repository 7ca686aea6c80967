package migration

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const pluginBreaker = "plugin.resilience.circuitBreaker"

func fail(url string) int { return ask(url + "?status=500") }

// untilOpen sends failing requests, with a pause after each, until one does not reach the service. It counts those that did.
func untilOpen(t *testing.T, url string, pause time.Duration) float64 {
	t.Helper()
	for n := range 50 {
		switch status := fail(url); status {
		case http.StatusInternalServerError:
		case http.StatusServiceUnavailable:
			return float64(n)
		default:
			require.Fail(t, "unexpected status", "%d", status)
		}
		time.Sleep(pause)
	}
	require.Fail(t, "the circuit does not open")
	return 0
}

// TestCircuitBreaker_sideBySide loads the page's examples in the real Traefik and compares its figures.
func TestCircuitBreaker_sideBySide(t *testing.T) {
	t.Parallel()
	section := readPage(t, "docs/migration/traefik.md").section(t, "## circuitBreaker")
	table := section.section(t, "### Measured").table(t)
	const own, ours = "`circuitBreaker`", "the plugin"
	systems := []system{
		{own, section.section(t, "### Before").middleware(t)},
		{ours, with(section.section(t, "### After").middleware(t), patience)},
	}
	fast := map[string]block{
		own:  {"circuitBreaker.fallbackDuration": "1s", "circuitBreaker.recoveryDuration": "2s"},
		ours: {pluginBreaker + ".resetTimeout": "1s"},
	}
	// checked is longer than checkPeriod, so that each answer is followed by a check.
	const checked = 120 * time.Millisecond
	undisturbed := []load{
		{
			row:     "failures that reach the service until the circuit opens, if they are the first requests",
			measure: func(t *testing.T, m measured) float64 { return untilOpen(t, m.a, checked) },
		},
		{
			row: "the same after 20 good answers",
			measure: func(t *testing.T, m measured) float64 {
				require.Equal(t, float64(20), passed(t, m, 20))
				time.Sleep(checked)
				return untilOpen(t, m.a, checked)
			},
		},
		{
			row: "answers of 503, if every third of 30 requests fails",
			measure: func(t *testing.T, m measured) float64 {
				refused := 0
				for i := range 30 {
					status := []func(string) int{ask, ask, fail}[i%3](m.a)
					if status == http.StatusServiceUnavailable {
						refused++
					}
					time.Sleep(checked)
				}
				return float64(refused)
			},
		},
		{
			row: "the circuit is open: answers of 503 to 10 requests over another router",
			measure: func(t *testing.T, m measured) float64 {
				untilOpen(t, m.a, checked)
				return refusedOf(send(atOnce(10), same(m.b)))
			},
		},
		{
			row:     "with 1 s open and `recoveryDuration: 2s`: answers of 503 to 20 requests a second, from the end of that second for 2 s",
			changes: fast,
			measure: func(t *testing.T, m measured) float64 {
				untilOpen(t, m.a, checked)
				time.Sleep(time.Second)
				return refusedOf(send(evenly(40, 50*time.Millisecond), same(m.a)))
			},
		},
		{
			row: "answers of 503 to 10 requests, after 10 clients each sent a malformed body",
			measure: func(t *testing.T, m measured) float64 {
				for range 10 {
					sendMalformedBody(t, m.a)
					time.Sleep(checked)
				}
				return refusedOf(send(atOnce(10), same(m.a)))
			},
		},
	}
	disturbed := []load{
		{
			row: "the circuit is open: answers of 503 to 10 requests to another gateway",
			measure: func(t *testing.T, m measured) float64 {
				untilOpen(t, m.a, checked)
				return refusedOf(send(atOnce(10), func(int) string { return m.onEachGateway(1) }))
			},
		},
		{
			row: "the circuit is open, and Traefik reloads: answers of 503 to 10 requests",
			measure: func(t *testing.T, m measured) float64 {
				untilOpen(t, m.a, checked)
				m.stack.reload(t, "reload-"+m.name)
				return refusedOf(send(atOnce(10), same(m.a)))
			},
		},
	}
	complete(t, table, undisturbed, disturbed)
	t.Run("undisturbed", func(t *testing.T) {
		t.Parallel()
		compare(t, 1, table, systems, undisturbed, false)
	})
	t.Run("disturbed", func(t *testing.T) {
		t.Parallel()
		compare(t, 2, table, systems, disturbed, true)
	})
}

// sendMalformedBody sends a request whose body has a chunk without a valid length, and reads the answer's first bytes.
func sendMalformedBody(t *testing.T, to string) {
	t.Helper()
	target, err := url.Parse(to)
	require.NoError(t, err)
	c, err := net.Dial("tcp", target.Host)
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.SetDeadline(time.Now().Add(10*time.Second)))
	_, err = fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: %s\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", target.Path, target.Host)
	require.NoError(t, err)
	answer := make([]byte, 12)
	n, _ := c.Read(answer)
	t.Logf("%s", answer[:n])
}
