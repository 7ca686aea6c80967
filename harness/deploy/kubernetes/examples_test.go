package kubernetes

import (
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/harness/gateway"
	"github.com/resilient-gateway/resilience/harness/walkthrough"
	"github.com/stretchr/testify/require"
)

// TestExamples has a real API server take the manifests of each example, as its README says, and starts Redis, the upstream and Traefik by
// them. Then it types the rest of the README.
func TestExamples(t *testing.T) {
	examples, err := walkthrough.Folders(root(t))
	require.NoError(t, err)
	require.NotEmpty(t, examples.Manifests)
	for _, folder := range examples.Manifests {
		t.Run(filepath.Base(folder), func(t *testing.T) {
			steps, err := walkthrough.Read(filepath.Join(folder, "README.md"))
			require.NoError(t, err)
			x := &example{cluster: startCluster(t), folder: folder, objects: readManifests(t, folder)}
			t.Run("what is named is there", x.requireNames)
			t.Run("the images are those of the tree", x.requireTheImages)
			t.Run("the API server takes all", func(t *testing.T) { x.requireTaken(t, steps[0]) })
			t.Run("it serves", func(t *testing.T) {
				web := x.serve(t)
				for _, step := range steps[1 : len(steps)-1] {
					out, err := walkthrough.Run(walkthrough.Ports(step.Command, map[string]string{"5000": web}))
					require.NoError(t, err)
					require.NoError(t, step.Match(out))
				}
			})
			t.Run("and can be taken away", func(t *testing.T) {
				last := steps[len(steps)-1]
				// Nobody here takes away what is in a namespace: do not wait for it.
				args := append(strings.Fields(strings.TrimPrefix(last.Command, "kubectl ")), "--wait=false")
				require.NoError(t, last.Match(x.kubectl(args...)+"\n"))
			})
		})
	}
}

// example is a folder of manifests, in a cluster.
type example struct {
	*cluster
	folder  string
	objects []object
}

func readManifests(t *testing.T, folder string) (objects []object) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*.yaml"))
	require.NoError(t, err)
	for _, file := range files {
		content, err := os.ReadFile(file)
		require.NoError(t, err)
		objects = append(objects, decode(t, content)...)
	}
	return objects
}

// requireTaken applies the folder, and has the API server take the pods that a controller would make of it.
func (x *example) requireTaken(t *testing.T, start walkthrough.Step) {
	require.Equal(t, "kubectl apply -f .", start.Command)
	require.NoError(t, start.Match(x.kubectl("apply", "--validate=strict", "-f", x.folder)+"\n"), "one line an object, and no warning")
	require.Empty(t, x.kubectl("diff", "-f", x.folder), "what would change a second time")

	space := at(x.objects[0], "metadata", "name").(string)
	x.kubectl("--namespace", space, "create", "serviceaccount", "default") // as a controller does
	for _, o := range x.objects {
		if o["kind"] != "Deployment" {
			continue
		}
		taken := pod(o)
		taken["metadata"].(object)["namespace"] = space
		out, err := x.create(taken, "--dry-run=server", "-o", "json")
		require.NoError(t, err, out)
		require.NotContains(t, out, "kube-api-access-", "a token that nobody needs: %s", at(o, "metadata", "name"))

		greedy := pod(o, func(container object) { container["securityContext"].(object)["allowPrivilegeEscalation"] = true })
		greedy["metadata"].(object)["namespace"] = space
		out, err = x.create(greedy, "--dry-run=server")
		require.Error(t, err)
		require.Contains(t, out, `violates PodSecurity "restricted:latest"`)
	}
}

// requireNames checks what no API server does: that selectors, ports and volumes name what is there.
func (x *example) requireNames(t *testing.T) {
	ports := map[any][]any{} // names of the ports, by the label of the pods
	data := map[any]object{} // of the ConfigMaps
	space := at(x.objects[0], "metadata", "name")
	require.Equal(t, "Namespace", x.objects[0]["kind"])
	for _, o := range x.objects[1:] {
		require.Equal(t, space, at(o, "metadata", "namespace"), at(o, "metadata", "name"))
		switch o["kind"] {
		case "ConfigMap":
			data[at(o, "metadata", "name")] = at(o, "data").(object)
		case "Deployment":
			container := at(o, "spec", "template", "spec", "containers", 0)
			for _, port := range at(container, "ports").([]any) {
				label := at(o, "spec", "template", "metadata", "labels", "app")
				ports[label] = append(ports[label], at(port, "name"))
			}
			for _, probe := range []string{"startupProbe", "readinessProbe", "livenessProbe"} {
				if port := at(container, probe, "httpGet", "port"); port != nil {
					require.Contains(t, ports[at(o, "spec", "selector", "matchLabels", "app")], port)
				}
			}
		}
	}
	seen := map[any]int{}
	for _, o := range x.objects {
		seen[o["kind"]]++
		switch o["kind"] {
		case "Service":
			require.Contains(t, ports[at(o, "spec", "selector", "app")], at(o, "spec", "ports", 0, "targetPort"))
		case "NetworkPolicy":
			rule := at(o, "spec", "ingress", 0)
			require.Contains(t, ports[at(o, "spec", "podSelector", "matchLabels", "app")], at(rule, "ports", 0, "port"))
			require.Contains(t, ports, at(rule, "from", 0, "podSelector", "matchLabels", "app"))
		case "Deployment":
			volumes, _ := at(o, "spec", "template", "spec", "volumes").([]any)
			for _, volume := range volumes {
				if name := at(volume, "configMap", "name"); name != nil {
					require.Contains(t, data, name)
					seen["volume"]++
				}
			}
		}
	}
	for _, kind := range []string{"Deployment", "Service", "NetworkPolicy", "ConfigMap", "volume"} {
		require.Positive(t, seen[kind], kind)
	}
}

// requireTheImages: an example runs the images that the tree runs.
func (x *example) requireTheImages(t *testing.T) {
	images := func(objects []object) (found []string) {
		for _, o := range objects {
			if image, ok := at(o, "spec", "template", "spec", "containers", 0, "image").(string); ok {
				found = append(found, image)
			}
		}
		slices.Sort(found)
		return found
	}
	require.Equal(t, images(decode(t, render(t, "k8s"))), images(x.objects))
}

// serve starts the parts as processes and returns the port of the gateway.
func (x *example) serve(t *testing.T) string {
	upstream, redis := freeAddress(t), freeAddress(t)
	process, err := gateway.StartUpstream(root(t), upstream, io.Discard)
	require.NoError(t, err)
	t.Cleanup(process.Stop)
	x.startRedis(t, redis)

	g := &traefik{t: t, web: freeAddress(t), api: freeAddress(t), log: &gateway.Log{}}
	dynamic := t.TempDir()
	services := map[string]string{"redis:6379": redis, "upstream:8081": upstream}
	for name, text := range at(find(t, x.objects, "ConfigMap", "gateway-dynamic"), "data").(object) {
		local, _, err := walkthrough.Dynamic([]byte(text.(string)), services)
		require.NoError(t, err, name)
		require.NoError(t, os.WriteFile(filepath.Join(dynamic, name), local, 0o644))
	}
	text := at(find(t, x.objects, "ConfigMap", "gateway-static"), "data", "traefik.yml").(string)
	static, err := walkthrough.Static([]byte(text), g.web, g.api, dynamic)
	require.NoError(t, err)
	starter := &gateway.Traefik{
		Root: root(t), Dir: t.TempDir(), Web: g.web, API: g.api, Log: g.log,
		Change: func(config map[string]any) {
			clear(config)
			maps.Copy(config, static)
		},
	}
	process, err = starter.Start()
	require.NoError(t, err, g.log.String())
	t.Cleanup(func() {
		process.Stop()
		if t.Failed() {
			t.Log(g.log.String())
		}
	})
	require.Eventually(t, func() bool {
		response, err := client.Get("http://" + g.api + "/api/http/routers/app@file")
		if err != nil {
			return false
		}
		defer response.Body.Close()
		shown, _ := io.ReadAll(response.Body)
		return strings.Contains(string(shown), `"status":"enabled"`)
	}, patience, tick, g.log)
	_, port, err := net.SplitHostPort(g.web)
	require.NoError(t, err)
	return port
}

// startRedis starts one by the command of the Deployment.
func (x *example) startRedis(t *testing.T, address string) {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	var args []string
	for _, arg := range at(find(t, x.objects, "Deployment", "redis"), "spec", "template", "spec", "containers", 0, "args").([]any) {
		args = append(args, arg.(string))
	}
	start(t, exec.Command(args[0], append(args[1:], "--bind", "127.0.0.1", "--port", port, "--dir", t.TempDir())...))
	require.Eventually(t, func() bool {
		connection, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			return false
		}
		connection.Close()
		return true
	}, patience, tick, "Redis")
}
