package kubernetes

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/resilient-gateway/resilience/harness/gateway"
	"github.com/resilient-gateway/resilience/harness/walkthrough"
	"github.com/stretchr/testify/require"
)

// ways are the files of examples/helm that say how the plugin comes to Traefik.
var ways = []string{"image.yaml", "init-container.yaml", "image-volume.yaml"}

// TestHelm types the README of the example on a real API server, up to a gateway for each way: the real Traefik with the arguments,
// the variables and the files that the values give. The chart itself is elsewhere: a stand-in for helm brings Traefik's definitions,
// and chartKeys says what the chart makes of the values.
func TestHelm(t *testing.T) {
	examples, err := walkthrough.Folders(root(t))
	require.NoError(t, err)
	require.Len(t, examples.Helm, 1)
	h := newHelm(t, examples.Helm[0])
	steps, err := walkthrough.Read(filepath.Join(h.folder, "README.md"))
	require.NoError(t, err)

	t.Run("start", func(t *testing.T) {
		for _, step := range steps[:4] {
			require.NoError(t, step.Match(h.typed(t, step.Command)))
		}
		const chart = "install traefik traefik --repo https://traefik.github.io/charts --version 41.3.0 -n resilience-helm"
		require.Equal(t, []string{chart + " -f values.yaml -f image.yaml --wait"}, h.noted("helm"))
		require.Empty(t, h.kubectl("diff", "-f", h.folder+"/before.yaml", "-f", h.folder+"/routes.yaml"), "what would change a second time")
		h.requireImages(t)
		h.toLoopback(t)
	})
	for _, way := range ways {
		t.Run(way, func(t *testing.T) {
			values := readValues(t, "values.yaml", way)
			out, err := h.create(h.pod(values), "--dry-run=server")
			require.NoError(t, err, out)
			g := h.startTraefik(t, values)
			g.eventually("/health", http.StatusOK)
			require.NotContains(t, g.log.String(), "forbidden")
			for _, step := range steps[4 : len(steps)-2] {
				out, err := walkthrough.Run(walkthrough.Ports(step.Command, map[string]string{"5000": portOf(t, g.web)}))
				require.NoError(t, err)
				require.NoError(t, step.Match(out))
			}
		})
	}
	t.Run("stop", func(t *testing.T) {
		uninstall, remove := steps[len(steps)-2], steps[len(steps)-1]
		require.NoError(t, uninstall.Match(h.typed(t, uninstall.Command)))
		// Nobody here takes away what is in a namespace: do not wait for it.
		require.NoError(t, remove.Match(h.typed(t, remove.Command+" --wait=false")))
	})
}

// Traefik reads a static file that it finds, and then no argument. Our image has one: the values hide it.
func TestHelm_theStaticFileOfTheImageIsHidden(t *testing.T) {
	h := &helm{secrets: t.TempDir()}
	values := readValues(t, "values.yaml", "image.yaml")
	delete(values, "additionalVolumeMounts")
	g := h.launchTraefik(t, values)
	require.Eventually(t, func() bool { return g.internal("/ping") == http.StatusOK }, patience, tick)
	require.Contains(t, g.log.String(), "Starting provider *file.Provider", "as the file says")
	require.NotContains(t, g.log.String(), "*crd.Provider", "as the arguments say")
	require.Equal(t, 0, g.get("/health").status, "nothing listens where the arguments say")
}

func TestHelm_keys(t *testing.T) {
	version, _ := goModule(t, "github.com/traefik/traefik/v3")
	for _, way := range ways {
		values := readValues(t, "values.yaml", way)
		require.Empty(t, unknownKeys(values, ""), way)
		require.Equal(t, true, at(values, "experimental", "abortOnPluginFailure"))
		require.Contains(t, []any{at(values, "image", "tag"), values["versionOverride"]}, any(version), "%s: the Traefik of the tests", way)
		for _, variable := range values["env"].([]any) {
			require.NotEqual(t, "GOMEMLIMIT", at(variable, "name"), "the chart sets it")
		}
		requireMemoryOf(t, values)
	}
	misspelt := readValues(t, "values.yaml", "image.yaml")
	gateway.Set(misspelt, true, "experimental", "abortOnPluginFailures")
	gateway.Set(misspelt, "10m", "ports", "web", "readTimeout")
	require.Equal(t, []string{"experimental.abortOnPluginFailures", "ports.web.readTimeout"}, unknownKeys(misspelt, ""))
}

// requireMemoryOf makes sure that a gateway of the chart has the memory of one of ours.
func requireMemoryOf(t *testing.T, values object) {
	t.Helper()
	ours := at(find(t, decode(t, render(t, "k8s")), "Deployment", "proxy-service"), "spec", "template", "spec", "containers", 0)
	require.Equal(t, at(ours, "resources", "limits", "memory"), at(values, "resources", "limits", "memory"))
	require.Equal(t, at(ours, "resources", "requests", "memory"), at(values, "resources", "requests", "memory"))
	require.Subset(t, at(ours, "env"), values["env"])
	require.Contains(t, at(ours, "env"), object{"name": "GOMEMLIMIT", "value": memoryLimit(values)})
}

// chartKeys are those of Traefik's chart, 41.3.0, that the example uses, with the argument that it makes of each. Those without
// one become other parts of the pod, or other objects.
var chartKeys = map[string]string{
	"additionalArguments":    "", // as they are
	"additionalVolumeMounts": "", "deployment.additionalVolumes": "", "deployment.initContainers": "", "volumes": "",
	"deployment.replicas": "", "deployment.goMemLimitPercentage": "", "resources": "", "env": "",
	"image.registry": "", "image.repository": "", "image.tag": "", "versionOverride": "",
	"ingressClass.enabled": "", "providers.kubernetesIngress.enabled": "", "service.spec.externalTrafficPolicy": "",

	"experimental.abortOnPluginFailure":                  "--experimental.abortonpluginfailure=%v",
	"experimental.localPlugins.resilience.moduleName":    "--experimental.localPlugins.resilience.moduleName=%v",
	"experimental.localPlugins.resilience.mountPath":     "",
	"experimental.localPlugins.resilience.subPath":       "",
	"experimental.localPlugins.resilience.type":          "",
	"experimental.localPlugins.resilience.volumeName":    "",
	"metrics.prometheus.addRoutersLabels":                "--metrics.prometheus.addRoutersLabels=%v",
	"ports.web.transport.lifeCycle.graceTimeOut":         "--entryPoints.web.transport.lifeCycle.graceTimeOut=%v",
	"ports.web.transport.respondingTimeouts.readTimeout": "--entryPoints.web.transport.respondingTimeouts.readTimeout=%v",
	"providers.kubernetesCRD.namespaces":                 "--providers.kubernetescrd.namespaces=%v",
	"rbac.namespaced":                                    "--providers.kubernetescrd.disableClusterScopeResources=%v",
}

// chartDefaults are the arguments that the chart gives where the example does not change them.
var chartDefaults = []string{
	"--entryPoints.metrics.address=:9100/tcp", "--entryPoints.traefik.address=:8080/tcp", "--entryPoints.web.address=:8000/tcp",
	"--entryPoints.websecure.address=:8443/tcp", "--entryPoints.websecure.http.tls=true", "--api.dashboard=true", "--ping=true",
	"--metrics.prometheus=true", "--metrics.prometheus.entrypoint=metrics", "--providers.kubernetescrd",
	"--providers.kubernetescrd.allowEmptyServices=true", "--log.level=INFO",
}

// readValues returns the values of files of the example, joined as Helm does it: maps are merged, all else is replaced.
func readValues(t *testing.T, files ...string) object {
	t.Helper()
	values := object{}
	for _, file := range files {
		merge(values, read(t, filepath.Join("examples", "helm", file)))
	}
	return values
}

func merge(into, from object) {
	for key, value := range from {
		more, isMap := value.(object)
		if old, hasMap := into[key].(object); isMap && hasMap {
			merge(old, more)
		} else {
			into[key] = value
		}
	}
}

// leaves calls visit with each key of the chart and its value, and with each key that is none.
func leaves(values object, prefix string, visit func(key string, value any)) {
	for _, name := range slices.Sorted(maps.Keys(values)) {
		key := prefix + name
		_, known := chartKeys[key]
		if below, isMap := values[name].(object); isMap && !known {
			leaves(below, key+".", visit)
		} else {
			visit(key, values[name])
		}
	}
}

func unknownKeys(values object, prefix string) (unknown []string) {
	leaves(values, prefix, func(key string, _ any) {
		if _, known := chartKeys[key]; !known {
			unknown = append(unknown, key)
		}
	})
	return unknown
}

// arguments returns those that Traefik is started with.
func arguments(values object) []string {
	arguments := slices.Clone(chartDefaults)
	leaves(values, "", func(key string, value any) {
		if list, isList := value.([]any); isList {
			value = joined(list)
		}
		if format := chartKeys[key]; format != "" {
			arguments = append(arguments, fmt.Sprintf(format, value))
		}
	})
	for _, argument := range values["additionalArguments"].([]any) {
		arguments = append(arguments, argument.(string))
	}
	return arguments
}

func joined(list []any) string {
	var texts []string
	for _, element := range list {
		texts = append(texts, fmt.Sprint(element))
	}
	return strings.Join(texts, ",")
}

// memoryLimit returns the GOMEMLIMIT that the chart makes of the limit of the pod, which is in Mi.
func memoryLimit(values object) string {
	var megabytes float64
	fmt.Sscanf(at(values, "resources", "limits", "memory").(string), "%fMi", &megabytes)
	return fmt.Sprintf("%dMiB", int(megabytes*at(values, "deployment", "goMemLimitPercentage").(float64)))
}

// podParts returns what the chart makes of the volumes.
func podParts(values object) (volumes, mounts []any) {
	for _, name := range []string{"data", "tmp"} {
		volumes = append(volumes, object{"name": name, "emptyDir": object{}})
		mounts = append(mounts, object{"name": name, "mountPath": "/" + name})
	}
	for _, volume := range values["volumes"].([]any) {
		volumes = append(volumes, object{"name": at(volume, "name"), "secret": object{"secretName": at(volume, "name")}})
		mounts = append(mounts, object{"name": at(volume, "name"), "mountPath": at(volume, "mountPath"), "readOnly": true})
	}
	more, _ := at(values, "deployment", "additionalVolumes").([]any)
	volumes = append(volumes, more...)
	more, _ = values["additionalVolumeMounts"].([]any)
	mounts = append(mounts, more...)
	if plugin, ok := at(values, "experimental", "localPlugins", "resilience").(object); ok {
		mount := object{"name": plugin["volumeName"], "mountPath": plugin["mountPath"]}
		if plugin["subPath"] != nil {
			mount["subPath"] = plugin["subPath"]
		}
		mounts = append(mounts, mount)
	}
	return volumes, mounts
}

const helmNamespace = "resilience-helm"

// helm is a cluster in which the example is installed.
type helm struct {
	*desk
	folder   string // the example
	redis    string // addresses on loopback
	upstream string
	secrets  string // folder of the files of the Secret
}

func newHelm(t *testing.T, folder string) *helm {
	t.Helper()
	h := &helm{
		desk:   &desk{cluster: startCluster(t), bin: t.TempDir()},
		folder: folder, redis: freeAddress(t), upstream: freeAddress(t), secrets: t.TempDir(),
	}
	require.NoError(t, os.Symlink(tool(t, "kubectl"), filepath.Join(h.bin, "kubectl")))
	h.command("helm", `case $1 in
install)
	echo "$*" >>"$0.log"
	kubectl apply --server-side -f `+traefikCRDs(t)+`
	kubectl wait --for=condition=Established --timeout=60s crd --all ;;
uninstall) [ "$*" = 'uninstall traefik -n `+helmNamespace+`' ] ;;
esac`)
	return h
}

// typed returns what a command of the README prints.
func (h *helm) typed(t *testing.T, command string) string {
	t.Helper()
	shell := exec.Command("bash", "-euo", "pipefail", "-c", command)
	shell.Dir = h.folder
	shell.Env = append(os.Environ(), "KUBECONFIG="+h.kubeconfig, "HOME="+h.dir, "PATH="+h.bin+":"+os.Getenv("PATH"))
	out, err := shell.CombinedOutput()
	require.NoError(t, err, "%s\n%s", command, out)
	return string(out)
}

// requireImages: the example runs the images that the tree runs, and the API server takes the pods of its Deployments.
func (h *helm) requireImages(t *testing.T) {
	t.Helper()
	h.kubectl("--namespace", helmNamespace, "create", "serviceaccount", "default") // as a controller does
	tree := map[any]bool{}
	for _, o := range decode(t, render(t, "k8s")) {
		tree[at(o, "spec", "template", "spec", "containers", 0, "image")] = true
	}
	objects := h.objects(t, "before.yaml")
	for _, name := range []string{"redis", "upstream"} {
		deployment := find(t, objects, "Deployment", name)
		require.True(t, tree[at(deployment, "spec", "template", "spec", "containers", 0, "image")], name)
		p := pod(deployment)
		gateway.Set(p, helmNamespace, "metadata", "namespace")
		out, err := h.create(p, "--dry-run=server")
		require.NoError(t, err, out)
	}
	image := at(readValues(t, "image.yaml"), "image")
	require.Contains(t, tree, fmt.Sprintf("%v:%v", at(image, "repository"), at(image, "tag")))
	require.Contains(t, tree, at(readValues(t, "init-container.yaml"), "deployment", "initContainers", 0, "image"))
	require.Contains(t, tree, at(readValues(t, "image-volume.yaml"), "deployment", "additionalVolumes", 0, "image", "reference"))
}

func (h *helm) objects(t *testing.T, file string) []object {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(h.folder, file))
	require.NoError(t, err)
	return decode(t, content)
}

// pod returns the one that the chart makes.
func (h *helm) pod(values object) object {
	volumes, mounts := podParts(values)
	spec := object{
		"serviceAccountName": "default", "automountServiceAccountToken": true,
		"securityContext": object{
			"runAsUser": 65532, "runAsGroup": 65532, "runAsNonRoot": true, "seccompProfile": object{"type": "RuntimeDefault"},
		},
		"volumes": volumes,
		"containers": []any{object{
			"name": "traefik", "image": "traefik", "args": arguments(values), "resources": values["resources"], "volumeMounts": mounts,
			"env": append([]any{object{"name": "GOMEMLIMIT", "value": memoryLimit(values)}}, values["env"].([]any)...),
			"securityContext": object{
				"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": object{"drop": []any{"ALL"}},
			},
		}},
	}
	if init := at(values, "deployment", "initContainers"); init != nil {
		spec["initContainers"] = init
	}
	return object{"apiVersion": "v1", "kind": "Pod", "metadata": object{"name": "try", "namespace": helmNamespace}, "spec": spec}
}

// toLoopback starts the service, and changes the objects for a machine without pods. The Secret's files lie in a folder.
func (h *helm) toLoopback(t *testing.T) {
	t.Helper()
	process, err := gateway.StartUpstream(root(t), h.upstream, io.Discard)
	require.NoError(t, err)
	h.t.Cleanup(process.Stop)
	encoded := h.kubectl("--namespace", helmNamespace, "get", "secret", "redis", "-o", "jsonpath={.data.password}")
	password, err := base64.StdEncoding.DecodeString(encoded)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(h.secrets, "password"), password, 0o600))

	path := at(find(t, h.objects(t, "routes.yaml"), "Middleware", "gateway"), "spec", "plugin", "resilience", "redis", "passwordFile").(string)
	h.kubectl("--namespace", helmNamespace, "patch", "middleware", "gateway", "--type=merge", "-p", text(t, object{"spec": object{
		"plugin": object{"resilience": object{"redis": object{"address": h.redis, "passwordFile": h.local(path)}}},
	}}))
	h.kubectl("--namespace", helmNamespace, "delete", "service", "upstream")
	h.kubectl("--namespace", helmNamespace, "create", "service", "externalname", "upstream", "--external-name=localhost",
		"--tcp="+portOf(t, h.upstream))
	h.kubectl("--namespace", helmNamespace, "patch", "service", "upstream", "--type=json",
		"-p", `[{"op": "replace", "path": "/spec/ports/0/name", "value": "http"}]`)

	// What rbac.namespaced gives to Traefik's account.
	for _, args := range [][]string{
		{"serviceaccount", "traefik"},
		{"role", "traefik", "--verb=get,list,watch", "--resource=services,configmaps,secrets,endpointslices.discovery.k8s.io"},
		{
			"role", "traefik-own", "--verb=get,list,watch", "--resource=ingressroutes.traefik.io,ingressroutetcps.traefik.io," +
				"ingressrouteudps.traefik.io,middlewares.traefik.io,middlewaretcps.traefik.io,tlsoptions.traefik.io,tlsstores.traefik.io," +
				"traefikservices.traefik.io,serverstransports.traefik.io,serverstransporttcps.traefik.io",
		},
		{"rolebinding", "traefik", "--role=traefik", "--serviceaccount=" + helmNamespace + ":traefik"},
		{"rolebinding", "traefik-own", "--role=traefik-own", "--serviceaccount=" + helmNamespace + ":traefik"},
	} {
		h.kubectl(append([]string{"--namespace", helmNamespace, "create"}, args...)...)
	}
}

// local returns a path in the pod as one on this machine.
func (h *helm) local(path string) string {
	return strings.ReplaceAll(path, "/run/secrets/redis", h.secrets)
}

func text(t *testing.T, value any) string {
	t.Helper()
	content, err := json.Marshal(value)
	require.NoError(t, err)
	return string(content)
}

func portOf(t *testing.T, address string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	return port
}

// startTraefik starts Redis by the command of its Deployment, and the gateway.
func (h *helm) startTraefik(t *testing.T, values object) *traefik {
	t.Helper()
	password, err := os.ReadFile(filepath.Join(h.secrets, "password"))
	require.NoError(t, err)
	var args []string
	for _, arg := range at(find(t, h.objects(t, "before.yaml"), "Deployment", "redis"), "spec", "template", "spec", "containers", 0, "args").([]any) {
		args = append(args, strings.ReplaceAll(arg.(string), "$(REDIS_PASSWORD)", string(password)))
	}
	start(t, exec.Command(args[0], append(args[1:], "--bind", "127.0.0.1", "--port", portOf(t, h.redis), "--dir", t.TempDir())...))
	token := h.kubectl("--namespace", helmNamespace, "create", "token", "traefik")
	return h.launchTraefik(t, values, "KUBECONFIG="+h.writeKubeconfig("traefik", token))
}

// launchTraefik starts the real Traefik as a container of the pod would start it: in a working directory with the plugin where the
// values bring it, and with the static file of the image if nothing hides it.
func (h *helm) launchTraefik(t *testing.T, values object, env ...string) *traefik {
	t.Helper()
	g := &traefik{t: t, web: freeAddress(t), api: freeAddress(t), log: &gateway.Log{}}
	image := t.TempDir()
	addresses := strings.NewReplacer(":8000/tcp", g.web+"/tcp", ":8080/tcp", g.api+"/tcp",
		":8443/tcp", freeAddress(t)+"/tcp", ":9100/tcp", freeAddress(t)+"/tcp")
	// Nothing of the example: the service is on loopback here.
	args := []string{"--providers.kubernetescrd.allowExternalNameServices=true"}
	for _, arg := range arguments(values) {
		args = append(args, addresses.Replace(arg))
	}
	command := exec.Command(tool(t, "traefik"), args...)
	command.Dir = h.workDir(t, values)
	command.Env = append(os.Environ(), "HOME="+image, "XDG_CONFIG_HOME="+image, "KUBERNETES_SERVICE_HOST=", "GOMEMLIMIT="+memoryLimit(values))
	for _, variable := range values["env"].([]any) {
		command.Env = append(command.Env, fmt.Sprintf("%v=%v", at(variable, "name"), h.local(at(variable, "value").(string))))
	}
	command.Env = append(command.Env, env...)
	_, mounts := podParts(values)
	isHidden := slices.ContainsFunc(mounts, func(mount any) bool { return at(mount, "mountPath") == "/etc/traefik" })
	if at(values, "image", "repository") != nil && !isHidden {
		static := read(t, "traefik/traefik.yml")
		gateway.Set(static, freeAddress(t), "entryPoints", "web", "address")
		gateway.Set(static, g.api, "entryPoints", "traefik", "address")
		gateway.Set(static, t.TempDir(), "providers", "file", "directory")
		require.NoError(t, os.WriteFile(filepath.Join(image, "traefik.yml"), []byte(text(t, static)), 0o644))
	}
	process, err := gateway.Start("Traefik", command, g.log)
	require.NoError(t, err)
	g.process = process
	t.Cleanup(func() {
		process.Stop()
		if t.Failed() {
			t.Log(g.log.String())
		}
	})
	return g
}

// workDir returns a folder with the plugin as the values bring it. dist stands for the root of our image.
func (h *helm) workDir(t *testing.T, values object) string {
	t.Helper()
	folder, dist := t.TempDir(), filepath.Join(root(t), "dist")
	plugins := filepath.Join(folder, "plugins-local")
	mountPath, mounted := at(values, "experimental", "localPlugins", "resilience", "mountPath").(string)
	if !mounted {
		require.Equal(t, "resilient-gateway/resilience-gateway", at(values, "image", "repository"), "the plugin is in it")
		require.NoError(t, os.Symlink(filepath.Join(dist, "plugins-local"), plugins))
		return folder
	}
	require.Equal(t, "/plugins-local", mountPath, "where Traefik looks for it")
	require.Nil(t, at(values, "image", "repository"), "the official image")
	volumes, mounts := podParts(values)
	mount := mounts[slices.IndexFunc(mounts, func(mount any) bool { return at(mount, "mountPath") == mountPath })]
	volume := volumes[slices.IndexFunc(volumes, func(volume any) bool { return at(volume, "name") == at(mount, "name") })]
	if at(volume, "image") != nil {
		require.NoError(t, os.Symlink(filepath.Join(dist, at(mount, "subPath").(string)), plugins))
		return folder
	}
	require.NotNil(t, at(volume, "emptyDir"))
	require.NoError(t, os.Mkdir(plugins, 0o755))
	init := at(values, "deployment", "initContainers", 0)
	require.Equal(t, at(mount, "name"), at(init, "volumeMounts", 0, "name"))
	paths := strings.NewReplacer("/plugins-local", dist+"/plugins-local", at(init, "volumeMounts", 0, "mountPath").(string), plugins)
	var args []string
	for _, arg := range at(init, "command").([]any) {
		args = append(args, paths.Replace(arg.(string)))
	}
	for range 2 { // a pod may run it again
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	require.DirExists(t, filepath.Join(plugins, "src"))
	require.NoDirExists(t, filepath.Join(plugins, "src", "src"))
	return folder
}
