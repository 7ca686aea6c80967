package kubernetes

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/harness/gateway"
	"github.com/stretchr/testify/require"
)

const (
	// password is one that a shell or a configuration file could misread.
	password = `it's "a" $HOME\password`

	healthyBody = `{"status":"healthy"}`
	limitedBody = `{"error":"Too many requests, please try again later."}`
	openBody    = `{"error":"Service temporarily unavailable due to circuit open."}`
)

// startRedis starts a Redis by the very command and configuration of our StatefulSet, and returns its port.
func startRedis(t *testing.T) string {
	t.Helper()
	_, port, err := net.SplitHostPort(freeAddress(t))
	require.NoError(t, err)
	dir := t.TempDir()
	objects := decode(t, render(t, "k8s"))
	container := at(find(t, objects, "StatefulSet", "redis"), "spec", "template", "spec", "containers", 0)

	content, err := os.ReadFile(filepath.Join(root(t), "k8s", "base", "redis", "redis.conf"))
	require.NoError(t, err)
	local := strings.NewReplacer("port 6379", "port "+port, "bind * -::*", "bind 127.0.0.1", "dir /data", "dir "+dir)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "mounted.conf"), []byte(local.Replace(string(content))), 0o644))

	paths := strings.NewReplacer("/etc/redis/redis.conf", dir+"/mounted.conf", "/tmp/redis.conf", dir+"/redis.conf",
		"redis-cli", "redis-cli -p "+port)
	command := func(path ...any) *exec.Cmd {
		var args []string
		for _, arg := range at(container, path...).([]any) {
			args = append(args, paths.Replace(arg.(string)))
		}
		return exec.Command(args[0], args[1:]...)
	}
	server := command("command")
	server.Env = append(os.Environ(), "REDIS_PASSWORD="+password)
	start(t, server)
	ready := func(password string) bool {
		probe := command("readinessProbe", "exec", "command")
		probe.Env = append(os.Environ(), "REDISCLI_AUTH="+password)
		return probe.Run() == nil
	}
	require.Eventually(t, func() bool { return ready(password) }, patience, tick, "Redis")
	require.False(t, ready("another"), "the probe must see a refusal")
	return port
}

// site is a cluster with our objects, changed only where a machine without pods needs it: the upstream is a process on
// loopback behind a Service of type ExternalName, and so is Redis.
type site struct {
	*cluster
	upstream   string // its address
	redis      string // addresses that the test has started, instead of one Redis
	onLoopback bool   // the Service upstream is of type ExternalName only for the test
}

func startSite(t *testing.T, kustomization object) *site {
	t.Helper()
	s := newSite(t)
	s.applySite(kustomization)
	return s
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{cluster: startCluster(t), upstream: freeAddress(t), onLoopback: true}
	process, err := gateway.StartUpstream(root(t), s.upstream, io.Discard)
	require.NoError(t, err)
	t.Cleanup(process.Stop)
	s.prepare(password)
	return s
}

func (s *site) applySite(kustomization object) {
	t := s.t
	t.Helper()
	components, _ := kustomization["components"].([]string)
	if slices.Contains(components, "k8s/components/gateway-api") {
		s.kubectl("apply", "--server-side", "-k", gatewayCRDs(t))
		s.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
	}
	patches, _ := kustomization["patches"].([]any)
	if s.onLoopback {
		_, port, err := net.SplitHostPort(s.upstream)
		require.NoError(t, err)
		patches = append(patches, patch("Service", "upstream", `[
			{"op": "add", "path": "/spec/type", "value": "ExternalName"},
			{"op": "add", "path": "/spec/externalName", "value": "localhost"},
			{"op": "remove", "path": "/spec/selector"},
			{"op": "replace", "path": "/spec/ports/0/port", "value": `+port+`}]`))
	}
	if s.redis == "" {
		s.redis = "127.0.0.1:" + startRedis(t)
	}
	kustomization["patches"] = append(patches,
		// So that the test need not wait, and knows how many tokens are left.
		patch("Middleware", "gateway", `[
			{"op": "replace", "path": "/spec/plugin/resilience/redis/address", "value": "`+s.redis+`"},
			{"op": "replace", "path": "/spec/plugin/resilience/rateLimit/refillPeriod", "value": "1h"},
			{"op": "replace", "path": "/spec/plugin/resilience/circuitBreaker/resetTimeout", "value": "1s"}]`))
	s.apply(write(t, kustomization))
}

func patch(kind, name, operations string) any {
	return object{"target": object{"kind": kind, "name": name}, "patch": operations}
}

// traefik is one that was started outside the cluster, with the rights of a service account in it.
type traefik struct {
	t       *testing.T
	web     string
	api     string
	log     *gateway.Log
	process *gateway.Process
}

// startTraefik starts it with a static file of our tree.
func (s *site) startTraefik(t *testing.T, static, account, web string) *traefik {
	t.Helper()
	token := s.kubectl("--namespace", namespace, "create", "token", account)
	g := &traefik{t: t, web: web, api: freeAddress(t), log: &gateway.Log{}}
	starter := &gateway.Traefik{
		Root: root(t), Dir: t.TempDir(), Web: g.web, API: g.api, Log: g.log,
		Env: []string{
			"KUBECONFIG=" + s.writeKubeconfig(account, token), "REDIS_PASSWORD=" + password,
			"KUBERNETES_SERVICE_HOST=", // a test in a cluster's pod must not ask that cluster
		},
		Change: func(config map[string]any) {
			clear(config)
			for key, value := range read(t, static) {
				config[key] = value
			}
			gateway.Set(config, g.web, "entryPoints", "web", "address")
			gateway.Set(config, g.api, "entryPoints", "traefik", "address")
			if s.onLoopback {
				gateway.Set(config, true, "providers", "kubernetesCRD", "allowExternalNameServices")
			}
		},
	}
	process, err := starter.Start()
	require.NoError(t, err, g.log.String())
	g.process = process
	t.Cleanup(func() {
		process.Stop()
		if t.Failed() {
			t.Log(g.log.String())
		}
	})
	return g
}

// reply is an answer, read whole.
type reply struct {
	status int
	header http.Header
	body   string
}

var client = &http.Client{Timeout: 30 * time.Second}

// get returns the answer, or one of status 0.
func (g *traefik) get(path string) reply {
	response, err := client.Get("http://" + g.web + path)
	if err != nil {
		return reply{}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return reply{}
	}
	return reply{status: response.StatusCode, header: response.Header, body: string(body)}
}

// kubelet asks as a node does: with the timeout of the probes, and on a connection for each question.
var kubelet = &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// internal returns the status of the internal entry point's answer, which the probes ask, or 0.
func (g *traefik) internal(path string) int {
	response, err := kubelet.Get("http://" + g.api + path)
	if err != nil {
		return 0
	}
	response.Body.Close()
	return response.StatusCode
}

func (g *traefik) eventually(path string, status int) {
	g.t.Helper()
	require.Eventually(g.t, func() bool { return g.get(path).status == status }, patience, tick, "%s: %d", path, status)
}

const baseStatic = "k8s/base/gateway/traefik.yml"

func TestServed(t *testing.T) {
	s := startSite(t, object{"resources": []string{"k8s/base"}})
	g := s.startTraefik(t, baseStatic, "proxy-service", freeAddress(t))
	g.eventually("/health", http.StatusOK)
	s.requireService(g, 100, 5, 2)

	t.Run("it is ready on the internal entry point alone", func(t *testing.T) {
		require.Equal(t, http.StatusOK, g.internal("/ready"))
		require.Equal(t, http.StatusNotFound, g.get("/ready").status)
	})
	t.Run("nothing else is served", func(t *testing.T) {
		require.Equal(t, http.StatusNotFound, g.get("/").status)
		require.Equal(t, http.StatusNotFound, g.get("/proxyish").status)
		for _, path := range []string{"/api/rawdata", "/dashboard/"} {
			response, err := client.Get("http://" + g.api + path)
			require.NoError(t, err)
			response.Body.Close()
			require.Equal(t, http.StatusNotFound, response.StatusCode, path)
		}
	})
	t.Run("a service without pods is one that fails", func(t *testing.T) {
		for _, o := range []object{
			{
				"apiVersion": "v1", "kind": "Service", "metadata": object{"name": "empty", "namespace": namespace},
				"spec": object{"ports": []any{object{"name": "http", "port": 80}}},
			},
			{
				"apiVersion": "traefik.io/v1alpha1", "kind": "IngressRoute",
				"metadata": object{"name": "empty", "namespace": namespace},
				"spec": object{"ingressClassName": "resilience", "entryPoints": []any{"web"}, "routes": []any{object{
					"kind": "Rule", "match": "Path(`/empty`)", "services": []any{object{"name": "empty", "port": "http"}},
				}}},
			},
		} {
			out, err := s.create(o)
			require.NoError(t, err, out)
		}
		g.eventually("/empty", http.StatusServiceUnavailable)
	})
	t.Run("key sources are those of the object", func(t *testing.T) {
		s.requireSources(t, g)
	})
	t.Run("an object has several limits", func(t *testing.T) { s.requireLimits(t, g) })
	t.Run("an object configures answers", func(t *testing.T) { s.requireAnswers(t, g) })
	t.Run("a change of the objects is followed", func(t *testing.T) {
		s.kubectl("--namespace", namespace, "delete", "ingressroute", "health")
		g.eventually("/health", http.StatusNotFound)
		s.kubectl("apply", "--validate=strict", "--namespace", namespace, "-f", "k8s/base/gateway/route-health.yaml")
		g.eventually("/health", http.StatusOK)
	})
	t.Run("the log holds nothing that was refused", func(t *testing.T) {
		require.NotContains(t, g.log.String(), "forbidden")
		require.NotContains(t, g.log.String(), password)
	})
	t.Run("without one of the rights no route is served", func(t *testing.T) {
		role := find(t, decode(t, render(t, "k8s")), "Role", "proxy-service")
		for _, rule := range at(role, "rules").([]any) {
			for _, resource := range at(rule, "resources").([]any) {
				t.Run(resource.(string), func(t *testing.T) {
					t.Parallel()
					s.requireNothingWithout(t, role, resource.(string))
				})
			}
		}
	})
}

// requireSources limits a route by a path, a cookie and the method, in front of the service without pods.
func (s *site) requireSources(t *testing.T, g *traefik) {
	t.Helper()
	for _, o := range []object{
		{
			"apiVersion": "traefik.io/v1alpha1", "kind": "Middleware", "metadata": object{"name": "sources", "namespace": namespace},
			"spec": object{"plugin": object{"resilience": object{"rateLimit": object{
				"capacity": 2, "refillRate": 1, "refillPeriod": "1h", "sourceCriterion": object{
					"ipStrategy": object{"depth": 0}, "requestPath": "/sources/{tenant}/*", "requestCookieName": "session", "requestMethod": true, "missingSource": "deny",
				},
			}}}},
		},
		{
			"apiVersion": "traefik.io/v1alpha1", "kind": "IngressRoute", "metadata": object{"name": "sources", "namespace": namespace},
			"spec": object{"ingressClassName": "resilience", "entryPoints": []any{"web"}, "routes": []any{object{
				"kind": "Rule", "match": "PathPrefix(`/sources`)", "middlewares": []any{object{"name": "sources"}},
				"services": []any{object{"name": "empty", "port": "http"}},
			}}},
		},
	} {
		out, err := s.create(o)
		require.NoError(t, err, out)
	}
	g.eventually("/sources/acme/orders", http.StatusForbidden)
	ask := func(path, cookie string) int {
		request, err := http.NewRequest(http.MethodGet, "http://"+g.web+path, nil)
		require.NoError(t, err)
		request.Header.Set("Cookie", cookie)
		response, err := client.Do(request)
		require.NoError(t, err)
		response.Body.Close()
		return response.StatusCode
	}
	const admitted, limited, denied = http.StatusServiceUnavailable, http.StatusTooManyRequests, http.StatusForbidden
	for i, step := range []struct {
		path, cookie string
		want         int
	}{
		{"/sources/acme/orders", "session=a", admitted},
		{"/sources/acme", "theme=dark; session=a", admitted},
		{"/sources/acme/invoices", "session=a", limited},
		{"/sources/acme/orders", "session=b", admitted},
		{"/sources/other/orders", "session=a", admitted},
		{"/sources/acme/orders", "session=a; session=b", denied},
		{"/sources", "session=a", denied},
	} {
		require.Equal(t, step.want, ask(step.path, step.cookie), "step %d", i)
	}
}

// A new gateway answers Traefik's ping before it has routes, and one that ends may still have requests: neither is ready.
func TestReady(t *testing.T) {
	s := startSite(t, object{"resources": []string{"k8s/base"}})
	g := s.startTraefik(t, baseStatic, "proxy-service", freeAddress(t))
	for g.internal("/ready") != http.StatusOK {
		require.Equal(t, http.StatusOK, g.internal("/ping"), "it lives")
		time.Sleep(tick / 10)
	}
	require.Equal(t, http.StatusOK, g.get("/health").status, "ready is one that serves")
	require.Equal(t, http.StatusOK, g.get("/proxy/ok").status)

	answered := make(chan reply, 1)
	go func() { answered <- g.get("/proxy/slow?seconds=5") }()
	require.Eventually(t, s.isBusy, patience, tick, "the service has the request")
	g.process.Signal(syscall.SIGTERM)
	require.Eventually(t, func() bool { return g.internal("/ready") != http.StatusOK }, 4*time.Second, tick/10)
	require.True(t, s.isBusy(), "the request is in flight yet")
	require.Equal(t, http.StatusOK, (<-answered).status, "and is finished")
}

// isBusy reports whether the service has a request in flight.
func (s *site) isBusy() bool {
	response, err := client.Get("http://" + s.upstream + "/stats")
	if err != nil {
		return false
	}
	defer response.Body.Close()
	var shown struct{ InFlight struct{ Now int } }
	return json.NewDecoder(response.Body).Decode(&shown) == nil && shown.InFlight.Now > 0
}

// A service of another namespace is served without any right there.
func TestServedInAnotherNamespace(t *testing.T) {
	const other = "k8s/components/other-namespace"
	s := newSite(t)
	s.onLoopback = false
	_, port, err := net.SplitHostPort(s.upstream)
	require.NoError(t, err)
	s.applySite(object{
		"resources": []string{"k8s/overlays/production"}, "components": []string{other},
		"patches": []any{patch("Service", "shop", `[
			{"op": "replace", "path": "/spec/externalName", "value": "localhost"},
			{"op": "replace", "path": "/spec/ports/0/port", "value": `+port+`}]`)},
	})
	s.kubectl("create", "namespace", "shop")
	for _, resource := range []string{"services", "endpointslices.discovery.k8s.io", "secrets", "configmaps"} {
		out, err := s.try("", "auth", "can-i", "list", resource, "--namespace", "shop",
			"--as", "system:serviceaccount:"+namespace+":proxy-service")
		require.Error(t, err, resource)
		require.Equal(t, "no\n", out)
	}
	g := s.startTraefik(t, other+"/traefik.yml", "proxy-service", freeAddress(t))
	g.eventually("/health", http.StatusOK)
	s.requireService(g, 1000, 10, 3)

	t.Run("the base refuses it", func(t *testing.T) {
		g := s.startTraefik(t, baseStatic, "proxy-service", freeAddress(t))
		g.eventually("/health", http.StatusOK)
		require.Equal(t, http.StatusNotFound, g.get("/proxy/ok").status)
		require.Contains(t, g.log.String(), "externalName services not allowed")
	})
}

func TestServedInProduction(t *testing.T) {
	s := startSite(t, object{"resources": []string{"k8s/overlays/production"}})
	g := s.startTraefik(t, baseStatic, "proxy-service", freeAddress(t))
	g.eventually("/health", http.StatusOK)
	s.requireService(g, 1000, 10, 3)
}

// requireService sends what the promises are about: 200, 503 and its end, and 429, by a bucket of that capacity, and a
// breaker that opens after the given failures and closes after the given successes.
func (s *site) requireService(g *traefik, capacity, failures, successes int) {
	t := s.t
	t.Helper()
	health := g.get("/health")
	require.Equal(t, healthyBody, health.body)
	require.Equal(t, "application/json", health.header.Get("Content-Type"))
	passed := 0
	pass := func(path string, status int) {
		t.Helper()
		require.Equal(t, status, g.get(path).status, path)
		passed++
	}
	pass("/proxy/ok", http.StatusOK)
	for range failures {
		pass("/proxy/fail", http.StatusInternalServerError)
	}
	refused := g.get("/proxy/ok")
	require.Equal(t, http.StatusServiceUnavailable, refused.status)
	require.Equal(t, openBody, refused.body)
	require.Equal(t, http.StatusOK, g.get("/health").status)

	time.Sleep(1100 * time.Millisecond)
	for range successes {
		pass("/proxy/ok", http.StatusOK)
	}
	pass("/proxy/fail", http.StatusInternalServerError) // one is not enough to open it, but for a probe
	limited := g.get("/proxy/ok")
	for ; limited.status == http.StatusOK; limited = g.get("/proxy/ok") {
		passed++
		require.LessOrEqual(t, passed, capacity)
	}
	require.Equal(t, http.StatusTooManyRequests, limited.status)
	require.GreaterOrEqual(t, passed, capacity*8/10, "tokens that were taken ahead and not used in time are lost")
	require.Equal(t, limitedBody, limited.body)
	require.NotEmpty(t, limited.header.Get("Retry-After"))
	require.Equal(t, http.StatusOK, g.get("/health").status)
}

// requireNothingWithout gives a service account all rights of the role but those on one kind of resource, and makes
// sure that a Traefik in its place serves nothing.
func (s *site) requireNothingWithout(t *testing.T, role object, resource string) {
	name := "without-" + resource
	var rules []any
	for _, rule := range at(role, "rules").([]any) {
		var left []any
		for _, r := range at(rule, "resources").([]any) {
			if r != resource {
				left = append(left, r)
			}
		}
		if left != nil {
			rules = append(rules, object{"apiGroups": at(rule, "apiGroups"), "resources": left, "verbs": at(rule, "verbs")})
		}
	}
	metadata := object{"name": name, "namespace": namespace}
	for _, o := range []object{
		{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
		{"apiVersion": role["apiVersion"], "kind": "Role", "metadata": metadata, "rules": rules},
		{
			"apiVersion": role["apiVersion"], "kind": "RoleBinding", "metadata": metadata,
			"roleRef":  object{"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
			"subjects": []any{object{"kind": "ServiceAccount", "name": name, "namespace": namespace}},
		},
	} {
		out, err := s.create(o)
		require.NoError(t, err, out)
	}
	g := s.startTraefik(t, baseStatic, name, freeAddress(t))
	refused := regexp.MustCompile(`cannot list resource \W+` + resource + `\W`)
	require.Eventually(t, func() bool { return refused.MatchString(g.log.String()) }, patience, tick, "the log tells of it")
	for range 30 {
		require.Equal(t, http.StatusOK, g.internal("/ping"), "it lives")
		require.Equal(t, http.StatusNotFound, g.internal("/ready"), "but is not ready")
		require.Equal(t, http.StatusNotFound, g.get("/health").status)
		require.Equal(t, http.StatusNotFound, g.get("/proxy/ok").status)
		time.Sleep(tick)
	}
}

func TestServedByGatewayAPI(t *testing.T) {
	web := freeAddress(t)
	_, port, err := net.SplitHostPort(web)
	require.NoError(t, err)
	s := startSite(t, object{
		"resources": []string{"k8s/base"}, "components": []string{"k8s/components/gateway-api"},
		"patches": []any{
			patch("Gateway", "proxy-service", `[{"op": "replace", "path": "/spec/listeners/0/port", "value": `+port+`}]`),
			// Traefik's Gateway API provider refuses a Service of type ExternalName; by way of a TraefikService it takes ours.
			patch("HTTPRoute", "proxy", `[{"op": "replace", "path": "/spec/rules/0/backendRefs/0",
				"value": {"group": "traefik.io", "kind": "TraefikService", "name": "upstream"}}]`),
		},
	})
	out, err := s.create(object{
		"apiVersion": "traefik.io/v1alpha1", "kind": "TraefikService",
		"metadata": object{"name": "upstream", "namespace": namespace},
		"spec":     object{"weighted": object{"services": []any{object{"name": "upstream", "port": "http"}}}},
	})
	require.NoError(t, err, out)
	g := s.startTraefik(t, "k8s/components/gateway-api/traefik.yml", "proxy-service", web)
	g.eventually("/health", http.StatusOK)
	s.requireService(g, 100, 5, 2)
	require.NotContains(t, g.log.String(), "forbidden")

	for _, route := range []string{"health", "proxy"} {
		for _, condition := range []string{"Accepted", "ResolvedRefs"} {
			path := `.status.parents[0].conditions[?(@.type=="` + condition + `")].status`
			require.Equal(t, "True", s.get("httproute", route, path), "%s %s", route, condition)
		}
	}
}
