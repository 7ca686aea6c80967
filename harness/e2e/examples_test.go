package e2e

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
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
	folders, _, err := walkthrough.Folders(root(t))
	require.NoError(t, err)
	for _, folder := range folders {
		t.Run(filepath.Base(folder), func(t *testing.T) {
			t.Parallel()
			steps, err := walkthrough.Read(filepath.Join(folder, "README.md"))
			require.NoError(t, err)
			x := startExample(t, folder)
			for _, step := range steps[1 : len(steps)-1] { // without start and stop
				x.follow(step)
			}
			for _, g := range x.gateways {
				require.NotRegexp(t, `"level":"(error|fatal)"|redis is away|redis unavailable`, g.log.String())
			}
		})
	}
}

// example is one that was started for a test.
type example struct {
	t         *testing.T
	folder    string
	secrets   string            // folder with what make-secrets.sh makes
	services  map[string]string // address of each, as a Compose file and the dynamic files name it: redis:6379
	published map[string]string // port of each, as the README names it: 5000
	gateways  []*traefik
}

// composeFile is what of a Compose file the test follows.
type composeFile struct {
	Services map[string]composeService
	Secrets  map[string]struct{ File string }
}

type composeService struct {
	Extends     struct{ Service string }
	Image       string
	Command     []string
	Ports       []string
	Volumes     []string
	Environment map[string]string
	Healthcheck struct{ Test []string }
}

// isTraefik reports whether the service is a gateway, or a Traefik without the plugin.
func (s composeService) isTraefik() bool {
	return s.Extends.Service == "gateway" || strings.HasPrefix(s.Image, "${TRAEFIK_IMAGE:-")
}

func startExample(t *testing.T, folder string) *example {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(folder, "docker-compose.yml"))
	require.NoError(t, err)
	var file composeFile
	require.NoError(t, yaml.Unmarshal(content, &file))
	x := &example{t: t, folder: folder, services: map[string]string{}, published: map[string]string{}}
	x.makeSecrets(file)
	for name, service := range file.Services {
		switch {
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

// container changes a command that is meant for the container of Redis, so that it runs here.
func (x *example) container(command, redis string) string {
	_, port, _ := net.SplitHostPort(redis)
	command = strings.ReplaceAll(x.mounted(command), "port 6379", "port "+port)
	command = strings.ReplaceAll(command, "redis-cli ", "redis-cli -p "+port+" ")
	// To the gateway, a container is a client with an address of its own.
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
	static := x.read(x.mount(service, "/etc/traefik/traefik.yml"))
	dynamic := x.t.TempDir()
	routers := x.writeDynamic(x.mount(service, "/etc/traefik/dynamic"), dynamic)
	var env []string
	for name, value := range service.Environment {
		env = append(env, name+"="+x.mounted(value))
	}
	starter := &gateway.Traefik{
		Root: root(x.t), Dir: x.t.TempDir(), Web: g.web, API: g.api, Env: env, Log: g.log,
		Change: func(config map[string]any) {
			clear(config)
			for key, value := range static {
				config[key] = value
			}
			require.Equal(x.t, ":5000", at(config, "entryPoints", "web", "address"))
			require.Equal(x.t, "/etc/traefik/dynamic", at(config, "providers", "file", "directory"))
			gateway.Set(config, g.web, "entryPoints", "web", "address")
			gateway.Set(config, g.api, "entryPoints", "traefik", "address")
			gateway.Set(config, dynamic, "providers", "file", "directory")
			gateway.Set(config, block{"insecure": true, "dashboard": false}, "api") // so that the test sees the routes
			gateway.Set(config, false, "global", "checkNewVersion")
			gateway.Set(config, block{"level": "INFO", "format": "json"}, "log")
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

// mount returns the path of the file or folder that the service has at a place of its own.
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

func (x *example) read(path string) block {
	x.t.Helper()
	content, err := os.ReadFile(path)
	require.NoError(x.t, err)
	var config block
	require.NoError(x.t, yaml.Unmarshal(content, &config), path)
	return config
}

// writeDynamic writes the dynamic files with the addresses of this example's services, and patience for Redis. It returns the names of
// the routers.
func (x *example) writeDynamic(from, to string) (routers []string) {
	x.t.Helper()
	files, err := filepath.Glob(filepath.Join(from, "*.yml"))
	require.NoError(x.t, err)
	require.NotEmpty(x.t, files, from)
	for _, file := range files {
		config := x.read(file)
		for name := range at(config, "http", "routers").(block) {
			routers = append(routers, name)
		}
		middlewares, _ := at(config, "http", "middlewares").(block)
		for name := range middlewares {
			redis, uses := at(middlewares, name, "plugin", "resilience", "redis").(block)
			if !uses {
				continue
			}
			gateway.Set(redis, patience, "timeout")
			gateway.Set(redis, patience, "dialTimeout")
			if _, secure := redis["tls"]; secure {
				host, _, err := net.SplitHostPort(redis["address"].(string))
				require.NoError(x.t, err)
				gateway.Set(redis, host, "tls", "serverName")
			}
		}
		content, err := yaml.Marshal(config)
		require.NoError(x.t, err)
		local := x.mounted(string(content))
		for name, address := range x.services {
			local = regexp.MustCompile(`(//| )`+regexp.QuoteMeta(name)+`\b`).ReplaceAllString(local, "${1}"+address)
		}
		require.NoError(x.t, os.WriteFile(filepath.Join(to, filepath.Base(file)), []byte(local), 0o644))
	}
	return routers
}

// at returns what is at the end of a path of names, or nil.
func at(value any, path ...string) any {
	for _, name := range path {
		here, _ := value.(block)
		value = here[name]
	}
	return value
}

// follow types the command of a step. What Redis holds may follow a moment after the answer.
func (x *example) follow(step walkthrough.Step) {
	x.t.Helper()
	command := step.Command
	inRedis, isInside := strings.CutPrefix(command, "docker compose exec -T redis ")
	switch {
	case isInside:
		command = x.container(inRedis, x.services["redis:6379"])
	case strings.Contains(command, "docker"):
		require.Fail(x.t, "the test cannot do without Docker what the README says", command)
	default:
		for from, to := range x.published {
			command = regexp.MustCompile(`\b`+from+`\b`).ReplaceAllString(command, to)
		}
	}
	deadline := time.Now().Add(3 * time.Second)
	for {
		err := step.Match(x.run(command))
		if err == nil {
			return
		}
		if !isInside || time.Now().After(deadline) {
			require.NoError(x.t, err, command)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (x *example) run(command string) string {
	x.t.Helper()
	shell := exec.Command("bash", "-c", "set -o pipefail; "+command)
	shell.Env = append(os.Environ(), "no_proxy=*", "NO_PROXY=*", "LC_ALL=C")
	var stderr bytes.Buffer
	shell.Stderr = &stderr
	out, err := shell.Output()
	require.NoError(x.t, err, "%s\n%s%s", command, out, stderr.String())
	return string(out)
}

// TestExamples_staticFiles: what Traefik is told at its start differs only in whom it trusts, and loads the plugin or nothing.
func TestExamples_staticFiles(t *testing.T) {
	folders, _, err := walkthrough.Folders(root(t))
	require.NoError(t, err)
	var first block
	for _, folder := range folders {
		x := &example{t: t, folder: folder}
		files, err := filepath.Glob(filepath.Join(folder, "traefik.yml"))
		require.NoError(t, err)
		deeper, err := filepath.Glob(filepath.Join(folder, "gateway", "traefik.yml"))
		require.NoError(t, err)
		files = append(files, deeper...)
		require.Len(t, files, 1, folder)
		static := x.read(files[0])
		delete(at(static, "entryPoints", "web").(block), "forwardedHeaders")
		if first == nil {
			first = static
		}
		require.Equal(t, first, static, files[0])
	}
	require.Equal(t, true, at(first, "experimental", "abortOnPluginFailure"))
	require.Equal(t, "github.com/resilient-gateway/resilience", fmt.Sprint(at(first, "experimental", "localPlugins", "resilience", "moduleName")))
}
