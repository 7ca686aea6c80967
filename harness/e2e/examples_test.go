package e2e

import (
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/harness/gateway"
	"github.com/resilient-gateway/resilience/harness/walkthrough"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

// TestExamples starts each example as processes: the real Traefik with the example's own static and dynamic files, a real Redis and the
// upstream, at addresses of loopback. Then it types what the README says, and compares what is printed.
func TestExamples(t *testing.T) {
	t.Parallel()
	examples, err := walkthrough.Folders(root(t))
	require.NoError(t, err)
	for _, folder := range examples.Compose {
		t.Run(filepath.Base(folder), func(t *testing.T) {
			t.Parallel()
			steps, err := walkthrough.Read(filepath.Join(folder, "README.md"))
			require.NoError(t, err)
			x := startExample(t, folder)
			for _, step := range steps[1 : len(steps)-1] { // without start and stop
				x.follow(step)
			}
			unexpected := `"level":"(error|fatal)"|redis is away|redis unavailable`
			if len(x.killed) > 0 {
				unexpected = `"level":"(error|fatal)"`
			}
			for _, g := range x.gateways {
				require.NotRegexp(t, unexpected, g.log.String())
				require.Len(t, g.events("redis is back"), len(x.killed), "%s", g.log)
			}
		})
	}
}

// example is one that was started for a test.
type example struct {
	t         *testing.T
	folder    string
	secrets   string                       // folder with what make-secrets.sh makes
	services  map[string]string            // address of each, as a Compose file and the dynamic files name it: redis:6379
	published map[string]string            // port of each, as the README names it: 5000
	servers   map[string]*redistest.Server // those that the README may kill
	killed    []string
	gateways  []*traefik
}

// composeFile is what of a Compose file the test follows.
type composeFile struct {
	Services map[string]composeService
	Secrets  map[string]struct{ File string }
}

type composeService struct {
	Extends     struct{ Service string }
	Command     []string
	Ports       []string
	Volumes     []string
	Environment map[string]string
	Healthcheck struct{ Test []string }
}

// isTraefik reports whether the service is a gateway, or a Traefik without the plugin.
func (s composeService) isTraefik() bool {
	return s.Extends.Service == "gateway" || s.Extends.Service == "load-balancer"
}

func startExample(t *testing.T, folder string) *example {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(folder, "docker-compose.yml"))
	require.NoError(t, err)
	var file composeFile
	require.NoError(t, yaml.Unmarshal(content, &file))
	x := &example{t: t, folder: folder, services: map[string]string{}, published: map[string]string{}, servers: map[string]*redistest.Server{}}
	x.makeSecrets(file)
	x.startGroup(file)
	x.startCluster(file)
	for name, service := range file.Services {
		switch {
		case x.servers[name] != nil:
		case service.isTraefik():
			address := freeAddress(t)
			x.services[name+":5000"] = address
			x.publish(service, address)
		case service.Extends.Service == "upstream":
			x.services[name+":8081"] = startUpstream(t).address
		case service.Extends.Service == "redis":
			x.services[name+":6379"] = x.startRedis(service)
		default:
			require.Fail(t, "the test cannot start this service", name)
		}
	}
	for name, service := range file.Services {
		if service.isTraefik() {
			x.gateways = append(x.gateways, x.startTraefik(x.services[name+":5000"], service))
		}
	}
	return x
}

// publish notes which port of this machine the example gives the service.
func (x *example) publish(service composeService, address string) {
	x.t.Helper()
	_, port, err := net.SplitHostPort(address)
	require.NoError(x.t, err)
	for _, published := range service.Ports {
		found := regexp.MustCompile(`^127\.0\.0\.1:\$\{[A-Z_]+:-(\d+)\}:5000$`).FindStringSubmatch(published)
		require.NotNil(x.t, found, "%s: write 127.0.0.1:${PORT:-5000}:5000", published)
		x.published[found[1]] = port
	}
}

// makeSecrets does what start.sh does before it calls Compose.
func (x *example) makeSecrets(file composeFile) {
	x.t.Helper()
	if len(file.Secrets) == 0 {
		return
	}
	start, err := os.ReadFile(filepath.Join(x.folder, "start.sh"))
	require.NoError(x.t, err)
	require.Contains(x.t, string(start), "\n./make-secrets.sh secrets\nexec docker compose up --build --detach --wait\n")
	made := filepath.Join(x.t.TempDir(), "secrets")
	for range 2 { // the second time changes nothing
		out, err := exec.Command(filepath.Join(x.folder, "make-secrets.sh"), made).CombinedOutput()
		require.NoError(x.t, err, "%s", out)
	}
	x.secrets = filepath.Join(x.t.TempDir(), "mounted")
	require.NoError(x.t, os.Mkdir(x.secrets, 0o755))
	for name, secret := range file.Secrets {
		content, err := os.ReadFile(filepath.Join(made, filepath.Base(secret.File)))
		require.NoError(x.t, err)
		require.NoError(x.t, os.WriteFile(filepath.Join(x.secrets, name), content, 0o600))
	}
}

// mounted puts the folder of secrets in where a text names that of a container.
func (x *example) mounted(text string) string {
	return strings.ReplaceAll(text, "/run/secrets", x.secrets)
}

// startRedis starts a plain Redis, or one by the example's own command, and returns its address.
func (x *example) startRedis(service composeService) string {
	x.t.Helper()
	if service.Command == nil {
		return redistest.Start(x.t).Addr()
	}
	address := freeAddress(x.t)
	local := func(command []string) *exec.Cmd {
		last := len(command) - 1
		text := strings.ReplaceAll(x.mounted(command[last]), "$$", "$")
		text = strings.ReplaceAll(text, "redis-server ", "redis-server --bind 127.0.0.1 --dir "+x.t.TempDir()+" ")
		text = x.container(text, address)
		return exec.Command("sh", "-c", text)
	}
	log := &gateway.Log{}
	process, err := gateway.Start("Redis", local(service.Command), log)
	require.NoError(x.t, err)
	x.t.Cleanup(process.Stop)
	require.Eventually(x.t, func() bool { return local(service.Healthcheck.Test).Run() == nil }, 10*time.Second, 50*time.Millisecond, log)
	return address
}

// startGroup starts a master, its replicas and their sentinels, if the example has sentinels.
func (x *example) startGroup(file composeFile) {
	x.t.Helper()
	var sentinels []string
	for name, service := range file.Services {
		if len(service.Command) > 0 && strings.Contains(service.Command[len(service.Command)-1], " --sentinel") {
			sentinels = append(sentinels, name)
		}
	}
	if len(sentinels) == 0 {
		return
	}
	master := redistest.Start(x.t)
	x.serve("redis", "6379", master)
	for name, service := range file.Services {
		if slices.Contains(service.Command, "--replicaof") {
			x.serve(name, "6379", redistest.Start(x.t, "--replicaof", "127.0.0.1 "+master.Port()))
		}
	}
	for _, name := range sentinels {
		configuration := string(x.read(x.mount(file.Services[name], "/etc/sentinel.conf")))
		configuration = strings.ReplaceAll(configuration, "port 26379\n", "")
		configuration = strings.ReplaceAll(configuration, " redis 6379 ", " 127.0.0.1 "+master.Port()+" ")
		x.serve(name, "26379", redistest.StartSentinel(x.t, configuration))
	}
	require.Eventually(x.t, func() bool {
		for _, name := range sentinels {
			if !strings.Contains(x.servers[name].Text("INFO", "sentinel"), "status=ok") ||
				!strings.Contains(x.servers[name].Text("INFO", "sentinel"), "slaves=2,sentinels=3") {
				return false
			}
		}
		return true
	}, 20*time.Second, 50*time.Millisecond)
}

// startCluster starts a cluster as node.sh does, if the example has one: half of the nodes are masters.
func (x *example) startCluster(file composeFile) {
	x.t.Helper()
	var nodes []string
	for name, service := range file.Services {
		if len(service.Command) > 0 && service.Command[0] == "/node.sh" {
			nodes = append(nodes, name)
		}
	}
	if len(nodes) == 0 {
		return
	}
	slices.Sort(nodes)
	cluster := redistest.StartCluster(x.t, len(nodes)/2, true, 2*time.Second)
	for i, name := range nodes {
		x.serve(name, "6379", cluster.Nodes[i])
	}
}

// serve notes which server is the service's.
func (x *example) serve(name, port string, server *redistest.Server) {
	x.servers[name] = server
	x.services[name+":"+port] = server.Addr()
}

// container changes a command that is meant for the container of Redis, so that it runs here.
func (x *example) container(command, redis string) string {
	_, port, _ := net.SplitHostPort(redis)
	command = strings.ReplaceAll(x.mounted(command), "port 6379", "port "+port)
	command = strings.ReplaceAll(command, "redis-cli ", "redis-cli -p "+port+" ")
	// To the gateway, a container is a client with another address.
	command = strings.ReplaceAll(command, "wget -qO- ", "curl -s --interface 127.0.0.2 ")
	for name, address := range x.services {
		command = strings.ReplaceAll(command, "//"+name+"/", "//"+address+"/")
	}
	return command
}

// startTraefik starts one with the files that the service mounts, and waits until it has read its routes.
func (x *example) startTraefik(address string, service composeService) *traefik {
	x.t.Helper()
	g := &traefik{t: x.t, web: address, api: freeAddress(x.t), log: &gateway.Log{}}
	dynamic := x.t.TempDir()
	routers := x.writeDynamic(x.mount(service, "/etc/traefik/dynamic"), dynamic)
	static, err := walkthrough.Static(x.read(x.mount(service, "/etc/traefik/traefik.yml")), g.web, g.api, dynamic)
	require.NoError(x.t, err)
	var env []string
	for name, value := range service.Environment {
		env = append(env, name+"="+x.mounted(value))
	}
	starter := &gateway.Traefik{
		Root: root(x.t), Dir: x.t.TempDir(), Web: g.web, API: g.api, Env: env, Log: g.log,
		Change: func(config map[string]any) {
			clear(config)
			maps.Copy(config, static)
		},
	}
	process, err := starter.Start()
	require.NoError(x.t, err, g.log.String())
	g.process = process
	x.t.Cleanup(func() {
		client.CloseIdleConnections() // Traefik waits for some of them
		process.Stop()
		if x.t.Failed() {
			x.t.Log(g.log.String())
		}
	})
	for _, router := range routers {
		g.requireEnabled(router)
	}
	return g
}

func (g *traefik) requireEnabled(router string) {
	g.t.Helper()
	var shown struct {
		Status string
		Error  []string
	}
	require.Eventually(g.t, func() bool {
		response, err := client.Get("http://" + g.api + "/api/http/routers/" + router + "@file")
		if err != nil {
			return false
		}
		defer response.Body.Close()
		return response.StatusCode == http.StatusOK
	}, 20*time.Second, 20*time.Millisecond, g.log)
	getJSON(g.t, "http://"+g.api+"/api/http/routers/"+router+"@file", &shown)
	require.Equal(g.t, "enabled", shown.Status, "%s: %v", router, shown.Error)
}

// mount returns the path of the file or folder that the service has mounted at the place.
func (x *example) mount(service composeService, place string) string {
	x.t.Helper()
	for _, volume := range service.Volumes {
		if from, isThere := strings.CutSuffix(volume, ":"+place+":ro"); isThere {
			return filepath.Join(x.folder, from)
		}
	}
	require.Fail(x.t, "nothing is mounted", place)
	return ""
}

func (x *example) read(path string) []byte {
	x.t.Helper()
	content, err := os.ReadFile(path)
	require.NoError(x.t, err)
	return content
}

// writeDynamic writes the dynamic files with the addresses of this example's services, and returns the names of the routers.
func (x *example) writeDynamic(from, to string) (routers []string) {
	x.t.Helper()
	files, err := filepath.Glob(filepath.Join(from, "*.yml"))
	require.NoError(x.t, err)
	require.NotEmpty(x.t, files, from)
	for _, file := range files {
		local, named, err := walkthrough.Dynamic(x.read(file), x.services)
		require.NoError(x.t, err, file)
		routers = append(routers, named...)
		content := []byte(x.mounted(string(local)))
		require.NoError(x.t, os.WriteFile(filepath.Join(to, filepath.Base(file)), content, 0o644))
	}
	return routers
}

// follow types the command of a step. What Redis holds may follow a moment after the answer.
func (x *example) follow(step walkthrough.Step) {
	x.t.Helper()
	command := step.Command
	inside := regexp.MustCompile(`^docker compose exec -T (\S+) (.*)$`).FindStringSubmatch(command)
	isInside := inside != nil
	killed, isKilled := strings.CutPrefix(command, "docker compose kill ")
	switch {
	case isKilled:
		require.Contains(x.t, x.servers, killed)
		x.servers[killed].Kill()
		x.killed = append(x.killed, killed)
		return
	case isInside && x.services[inside[1]+":26379"] != "":
		_, port, _ := net.SplitHostPort(x.services[inside[1]+":26379"])
		command = strings.ReplaceAll(inside[2], "-p 26379 ", "-p "+port+" ")
	case isInside:
		require.Contains(x.t, x.services, inside[1]+":6379")
		command = x.container(inside[2], x.services[inside[1]+":6379"])
	case strings.Contains(command, "docker"):
		require.Fail(x.t, "the test cannot do without Docker what the README says", command)
	default:
		command = walkthrough.Ports(command, x.published)
	}
	deadline := time.Now().Add(3 * time.Second)
	for {
		out, err := walkthrough.Run(command)
		if err == nil {
			err = step.Match(out)
		}
		if err == nil {
			return
		}
		if !isInside || time.Now().After(deadline) {
			require.NoError(x.t, err, command)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// TestExamples_staticFiles: at its start every gateway is told the same, but for whom it trusts.
func TestExamples_staticFiles(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root(t), "examples", "*", "traefik.yml"))
	require.NoError(t, err)
	deeper, err := filepath.Glob(filepath.Join(root(t), "examples", "*", "gateway", "traefik.yml"))
	require.NoError(t, err)
	examples, err := walkthrough.Folders(root(t))
	require.NoError(t, err)
	require.Len(t, append(files, deeper...), len(examples.Compose))
	for _, file := range append(files, deeper...) {
		content, err := os.ReadFile(file)
		require.NoError(t, err)
		var static block
		require.NoError(t, yaml.Unmarshal(content, &static), file)
		delete(static["entryPoints"].(block)["web"].(block), "forwardedHeaders")
		require.Equal(t, block{
			"entryPoints": block{"web": block{"address": ":5000"}},
			"ping":        block{},
			"providers":   block{"file": block{"directory": "/etc/traefik/dynamic"}},
			"experimental": block{
				"abortOnPluginFailure": true,
				"localPlugins":         block{"resilience": block{"moduleName": "github.com/resilient-gateway/resilience"}},
			},
		}, static, file)
	}
}
