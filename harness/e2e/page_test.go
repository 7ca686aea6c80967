package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/harness/browser"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// tab is a browser's tab with the status page of a gateway.
type tab struct {
	t *testing.T
	*browser.Browser
}

func openPage(t *testing.T, g *traefik) *tab {
	t.Helper()
	b, err := browser.Start(t.TempDir())
	require.NoError(t, err)
	t.Cleanup(b.Stop)
	require.NoError(t, b.Look(1200, 900, false, false))
	require.NoError(t, b.Open("http://"+g.api+"/resilience/"))
	return &tab{t, b}
}

// shows waits until the page shows a text.
func (p *tab) shows(text string) {
	p.t.Helper()
	require.Eventually(p.t, func() bool { return strings.Contains(p.Text(), text) }, soon, 10*time.Millisecond, "%q in %s", text, p.Text())
}

// watch has the page note when it shows a text that it does not show yet. The function that it returns waits for that, and returns how long
// it took from a time on, by the clock that page and test share: not how long the browser takes to say so.
func (p *tab) watch(text string) func(begun time.Time) time.Duration {
	p.t.Helper()
	require.NotContains(p.t, p.Text(), text)
	p.do(`(function (text) {
		window.shownAt = 0;
		new MutationObserver(function (changes, observer) {
			if (document.body.innerText.includes(text)) { window.shownAt = Date.now(); observer.disconnect(); }
		}).observe(document.body, { subtree: true, childList: true, characterData: true, attributes: true });
	})(` + strconv.Quote(text) + `)`)
	return func(begun time.Time) time.Duration {
		p.t.Helper()
		p.shows(text)
		var at int64
		require.Eventually(p.t, func() bool { return p.Eval("window.shownAt", &at) == nil && at > 0 }, soon, 10*time.Millisecond)
		return time.UnixMilli(at).Sub(begun)
	}
}

// do evaluates an expression.
func (p *tab) do(expression string) {
	p.t.Helper()
	require.NoError(p.t, p.Eval(expression, nil))
}

// accessible has axe-core look at the page, and fails for what is serious.
func (p *tab) accessible() {
	p.t.Helper()
	axe, err := os.ReadFile(filepath.Join(root(p.t), "dist", "axe", "node_modules", "axe-core", "axe.min.js"))
	require.NoError(p.t, err, "make axe")
	require.NoError(p.t, p.Eval(string(axe)+"; undefined", nil))
	var violations []struct {
		ID, Impact, Help string
		Nodes            []struct{ HTML string }
	}
	require.NoError(p.t, p.Eval(`axe.run().then(function (r) { return r.violations.map(function (v) {
		return {ID: v.id, Impact: v.impact, Help: v.help, Nodes: v.nodes.map(function (n) { return {HTML: n.html}; })}; }); })`, &violations))
	for _, v := range violations {
		require.NotContains(p.t, []string{"serious", "critical"}, v.Impact, "%+v", v)
	}
}

func TestPage_showsWhatHappens(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	up := startUpstream(t)
	plugin := block{
		"redis":          redisBlock(server),
		"rateLimit":      block{"capacity": 20, "refillRate": 1, "refillPeriod": "1h"},
		"circuitBreaker": block{"failureThreshold": 3, "resetTimeout": "1h"},
	}
	one := startWithAdmin(t, up, plugin, block{"path": "/resilience"})
	two := startWithAdmin(t, up, plugin, block{"path": "/resilience"})
	p := openPage(t, one)
	p.shows("circuit closed")
	p.shows("20 at once")

	burst(30, "/proxy/ok", one)
	p.shows("20 admitted, 10 limited")
	p.shows("Clients refused most")
	p.do(`document.querySelector('[aria-label="Look up ip:127.0.0.1"]').click()`)
	p.shows("Limited: the bucket is empty")
	p.do(`window.confirm = function () { return true; }; document.getElementById('why').value = 'a test'; document.getElementById('remove').click()`)
	p.shows("Not limited.")
	require.Equal(t, 200, two.get("/proxy/ok").status, "on the other gateway too")
	events := one.events("bucket deleted")
	require.Len(t, events, 1)
	require.Equal(t, "a test", events[0]["reason"])
	require.Equal(t, "ip:127.0.0.1", events[0]["client"])

	for range 3 {
		two.get("/proxy/fail")
	}
	require.Equal(t, 503, two.get("/proxy/ok").status)
	p.shows("circuit open, probe in")
	p.shows("closed to open")

	shots := filepath.Join(root(t), "dist", "screenshots")
	require.NoError(t, os.MkdirAll(shots, 0o755))
	for _, look := range []struct {
		name          string
		width, height int
		phone, dark   bool
	}{{"light", 1200, 900, false, false}, {"dark", 1200, 900, false, true}, {"phone", 390, 844, true, false}} {
		require.NoError(t, p.Look(look.width, look.height, look.phone, look.dark))
		p.accessible()
		var overflow bool
		require.NoError(t, p.Eval("document.documentElement.scrollWidth > document.documentElement.clientWidth", &overflow))
		require.False(t, overflow, "%s: it scrolls sideways", look.name)
		require.NoError(t, p.Screenshot(filepath.Join(shots, look.name+".png")))
	}
	require.Empty(t, p.Problems())
}

// A circuit that is opened on the page of one gateway is open for the other one, which shows so within a second, and for one that starts
// later. It ends by itself.
func TestPage_opensACircuitForTheFleet(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	up := startUpstream(t)
	plugin := block{
		"redis":          redisBlock(server),
		"circuitBreaker": block{"failureThreshold": 3, "resetTimeout": "1h", "halfOpenSuccessThreshold": 1},
	}
	one := startWithAdmin(t, up, plugin, block{"path": "/resilience"})
	two := startWithAdmin(t, up, plugin, block{"path": "/resilience"})
	p, q := openPage(t, one), openPage(t, two)
	for _, g := range []*traefik{one, two} {
		require.Equal(t, 200, g.get("/proxy/ok").status)
	}
	p.shows("circuit closed")
	q.shows("circuit closed")
	p.do(`window.confirm = function () { return true; }; document.querySelector('details').open = true;
		document.querySelector('details select').value = '1h'; document.querySelector('details input').value = 'a <b>repair</b>';
		document.querySelector('[aria-label="Open the circuit of gateway"]').click()`)
	p.shows("Done.")
	time.Sleep(100 * time.Millisecond)
	require.Equal(t, 503, two.get("/proxy/ok").status)
	require.Equal(t, 503, one.get("/proxy/ok").status)
	q.shows("Opened by hand until")
	q.shows("a <b>repair</b>")
	p.shows("circuit open by hand")
	p.accessible()
	events := one.events("circuit opened by hand")
	require.Len(t, events, 1)
	require.Equal(t, "a <b>repair</b>", events[0]["reason"])
	require.Equal(t, "1h0m0s", events[0]["for"])
	require.NotEmpty(t, events[0]["source"])
	later := startWithAdmin(t, up, plugin, block{"path": "/resilience"})
	require.Equal(t, 503, later.get("/proxy/ok").status)
	require.Equal(t, 2, up.stats().Requests)

	require.Equal(t, 403, two.admin("POST", "/circuits/gateway/close").status, "as a form of another site")
	require.Equal(t, 403, two.admin("POST", "/circuits/gateway/close", "X-Resilience", "1", "Origin", "https://evil.example").status)
	require.Equal(t, 405, two.admin("GET", "/circuits/gateway/close", "X-Resilience", "1").status)
	require.Equal(t, 503, two.get("/proxy/ok").status)
	require.Equal(t, 200, two.admin("POST", "/circuits/gateway/close?for=3s", "X-Resilience", "1").status)
	p.shows("Closed by hand until")
	for range 5 {
		require.Equal(t, 500, one.get("/proxy/fail").status, "whatever fails")
	}
	require.Eventually(t, func() bool { return !strings.Contains(p.Text(), "by hand until") }, soon, 10*time.Millisecond, "it ends by itself")
	for range 3 {
		one.get("/proxy/fail")
	}
	require.Equal(t, 503, one.get("/proxy/ok").status, "failures count again")
	require.Empty(t, p.Problems())
	require.Empty(t, q.Problems())
}

// The page of one gateway shows within a second that the circuit of another one opens, by failures or by hand. It is measured alone, and up to
// five times: a machine that is busy with something else lengthens it.
func TestPage_showsChangesOfOtherGatewaysWithinASecond(t *testing.T) {
	plugin := block{
		"redis":          redisBlock(redistest.Start(t)),
		"circuitBreaker": block{"failureThreshold": 3, "resetTimeout": "3s", "halfOpenSuccessThreshold": 1},
	}
	up := startUpstream(t)
	one := startWithAdmin(t, up, plugin, block{"path": "/resilience"})
	two := startWithAdmin(t, up, plugin, block{"path": "/resilience"})
	p := openPage(t, one)
	for _, row := range []struct {
		name, text string
		open       func()
	}{
		{"an opening circuit", "circuit open, probe in", func() {
			for range 3 {
				two.get("/proxy/fail")
			}
		}},
		{"a circuit opened by hand", "Opened by hand until", func() { two.admin("POST", "/circuits/gateway/open?for=3s", "X-Resilience", "1") }},
	} {
		least := time.Hour
		for attempt := 0; attempt < 5 && least >= time.Second; attempt++ {
			require.Eventually(t, func() bool { return two.get("/proxy/ok").status == 200 }, soon, 50*time.Millisecond)
			p.shows("circuit closed")
			shown := p.watch(row.text)
			row.open()
			least = min(least, shown(time.Now()))
		}
		t.Logf("%s of the other gateway is shown after %s", row.name, least.Round(time.Millisecond))
		require.Less(t, least, time.Second)
	}
	require.Empty(t, p.Problems())
}

// The page lists the circuits of hosts, the open ones first, and each has its control.
func TestPage_opensTheCircuitOfAHost(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	plugin := block{"redis": redisBlock(server), "circuitBreaker": block{"failureThreshold": 2, "resetTimeout": "1h", "scope": "host"}}
	one := startWithAdmin(t, startUpstream(t), plugin, block{"path": "/resilience"})
	ask := func(host, path string) int {
		request, err := http.NewRequest("GET", one.url(path), nil)
		require.NoError(t, err)
		request.Host = host
		return send(request).status
	}
	for range 2 {
		require.Equal(t, 500, ask("bad.example", "/proxy/fail"))
	}
	require.Equal(t, 200, ask("good.example", "/proxy/ok"))
	p := openPage(t, one)
	p.shows("Circuits of hosts or paths: 2 known, 1 open")
	var first string
	require.NoError(t, p.Eval("document.querySelector('td.key').textContent", &first))
	require.Equal(t, "host:bad.example", first)
	p.do(`window.confirm = function (text) { window.asked = text; return true; };
		document.querySelector('[aria-label="Open or close the circuit of host:good.example"]').click();
		document.querySelector('details').querySelectorAll('input')[0].value = 'a repair';
		document.querySelector('[aria-label="Open the circuit of host:good.example of gateway"]').click()`)
	p.shows("Done.")
	p.shows("open by hand, for another")
	p.shows("a repair")
	var asked string
	require.NoError(t, p.Eval("window.asked", &asked))
	require.Equal(t, "Open the circuit of host:good.example of gateway for 10 minutes? All gateways refuse its requests until then.", asked)
	require.Eventually(t, func() bool { return ask("good.example", "/proxy/ok") == 503 }, soon, 10*time.Millisecond)
	require.Equal(t, 200, ask("other.example", "/proxy/ok"))
	p.accessible()
	p.do(`document.querySelector('[aria-label="Automatic: leave the circuit of host:good.example of gateway to itself"]').click()`)
	require.Eventually(t, func() bool { return ask("good.example", "/proxy/ok") == 200 }, soon, 10*time.Millisecond)
	require.Empty(t, p.Problems())
}

func TestPage_asksForTheTokenAndKeepsItInTheTab(t *testing.T) {
	t.Parallel()
	g := startWithAdmin(t, startUpstream(t), block{"rateLimit": block{"capacity": 5}}, block{"tokenEnv": "ADMIN_TOKEN"}, "ADMIN_TOKEN="+adminToken)
	p := openPage(t, g)
	p.shows("Locked")
	p.accessible()
	require.NotContains(t, p.Text(), "gateway", "it shows nothing")
	require.NoError(t, p.Key("Tab", "")) // by the keyboard alone
	require.NoError(t, p.Type(adminToken))
	require.NoError(t, p.Key("Enter", "\r"))
	p.shows("5 at once")
	var stored string
	require.NoError(t, p.Eval("JSON.stringify([localStorage, sessionStorage, document.cookie, document.getElementById('token').value])", &stored))
	require.NotContains(t, stored, adminToken)
	require.Empty(t, p.Problems())
	p.do("location.reload()")
	p.shows("Locked")
}
