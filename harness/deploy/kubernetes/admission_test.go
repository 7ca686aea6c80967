package kubernetes

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// write writes an overlay over one of our folders, into a folder of the test's own.
func write(t *testing.T, kustomization object) string {
	t.Helper()
	folder := t.TempDir()
	for _, field := range []string{"resources", "components"} {
		paths, _ := kustomization[field].([]string)
		for i, path := range paths {
			relative, err := filepath.Rel(folder, filepath.Join(root(t), path))
			require.NoError(t, err)
			paths[i] = relative
		}
	}
	content, err := json.Marshal(kustomization)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(folder, "kustomization.yaml"), content, 0o644))
	return folder
}

func withGatewayAPI(t *testing.T) string {
	t.Helper()
	return write(t, object{"resources": []string{"k8s/base"}, "components": []string{"k8s/components/gateway-api"}})
}

func TestAccepted(t *testing.T) {
	for _, folder := range append(folders, "with Gateway API") {
		t.Run(folder, func(t *testing.T) {
			c := startCluster(t)
			c.prepare("a password")
			if folder == "with Gateway API" {
				c.kubectl("apply", "--server-side", "-k", gatewayCRDs(t))
				c.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
				folder = withGatewayAPI(t)
			}
			objects := decode(t, render(t, folder))
			out := c.apply(folder)
			require.Len(t, strings.Split(out, "\n"), len(objects), "one line an object, and no warning")
			require.Empty(t, c.kubectl("diff", "-k", folder), "what would change a second time")
			c.requirePods(objects)
		})
	}
}

// requirePods makes sure that the API server takes the pods that a controller would make of our workloads.
func (c *cluster) requirePods(objects []object) {
	c.t.Helper()
	made := 0
	for _, o := range objects {
		if o["kind"] != "Deployment" && o["kind"] != "StatefulSet" {
			continue
		}
		made++
		out, err := c.create(pod(o), "--dry-run=server", "-o", "json")
		require.NoError(c.t, err, out)
		name := at(o, "metadata", "name")
		require.Equal(c.t, name == "proxy-service", strings.Contains(out, `"kube-api-access-`), "who has a token: %s", name)

		// The same with one right more is refused: the admission is on.
		out, err = c.create(pod(o, func(container object) {
			container["securityContext"].(object)["allowPrivilegeEscalation"] = true
		}), "--dry-run=server")
		require.Error(c.t, err)
		require.Contains(c.t, out, `violates PodSecurity "restricted:latest"`)
	}
	require.Equal(c.t, 3, made)
}

// pod returns the pod that a controller would make of a workload, with the volumes that a StatefulSet adds.
func pod(workload object, changes ...func(container object)) object {
	content, err := json.Marshal(at(workload, "spec", "template"))
	if err != nil {
		panic(err)
	}
	var p object
	if err := json.Unmarshal(content, &p); err != nil {
		panic(err)
	}
	p["apiVersion"] = "v1"
	p["kind"] = "Pod"
	p["metadata"].(object)["name"] = "try"
	p["metadata"].(object)["namespace"] = namespace
	spec := p["spec"].(object)
	claims, _ := at(workload, "spec", "volumeClaimTemplates").([]any)
	for _, claim := range claims {
		name := at(claim, "metadata", "name")
		volumes, _ := spec["volumes"].([]any)
		spec["volumes"] = append(volumes, object{"name": name, "persistentVolumeClaim": object{"claimName": name}})
	}
	for _, change := range changes {
		change(at(spec, "containers", 0).(object))
	}
	return p
}

func (c *cluster) create(o object, args ...string) (string, error) {
	c.t.Helper()
	content, err := json.Marshal(o)
	require.NoError(c.t, err)
	return c.try(string(content), append([]string{"create", "--validate=strict", "-f", "-"}, args...)...)
}

func TestTheOneFile(t *testing.T) {
	c := startCluster(t)
	out, err := c.try("", "apply", "--validate=strict", "-f", "dist/k8s-deployment.yaml")
	require.Error(t, err)
	require.Contains(t, out, "ensure CRDs are installed first", "they are a step of their own")

	c.prepare("a password")
	c.kubectl("apply", "--validate=strict", "-f", "dist/k8s-deployment.yaml")
	require.Empty(t, c.kubectl("diff", "-k", "k8s"))

	t.Run("a misspelt field is refused", func(t *testing.T) {
		for kind, name := range map[string]string{"Deployment": "proxy-service", "IngressRoute": "proxy", "HorizontalPodAutoscaler": "proxy-service"} {
			o := find(t, decode(t, render(t, "k8s")), kind, name)
			o["spec"].(object)["minReplica"] = 3
			o["metadata"].(object)["name"] = "try"
			out, err := c.create(o, "--dry-run=server")
			require.Error(t, err, kind)
			require.Contains(t, out, `unknown field "spec.minReplica"`)
		}
	})
	t.Run("an overlay can follow the base", func(t *testing.T) {
		c.apply("k8s/overlays/staging")
		c.apply("k8s/overlays/production")
		require.Equal(t, "LoadBalancer", c.kubectl("-n", namespace, "get", "service", "proxy-service", "-o", "jsonpath={.spec.type}"))
		require.Equal(t, "1000", c.kubectl("-n", namespace, "get", "middleware", "gateway", "-o", "jsonpath={.spec.plugin.resilience.rateLimit.capacity}"))
	})
}

// rollout is our gateway's Deployment under the real controllers.
type rollout struct{ *cluster }

func (r rollout) get(path string) string {
	r.t.Helper()
	return r.kubectl("--namespace", namespace, "get", "deployment", "proxy-service", "-o", "jsonpath={"+path+"}")
}

func (r rollout) image() string { return r.get(".spec.template.spec.containers[0].image") }

func (r rollout) awaitRevision(revision string) {
	r.t.Helper()
	require.Eventually(r.t, func() bool { return r.get(`.metadata.annotations.deployment\.kubernetes\.io/revision`) == revision }, patience, tick)
}

// pods returns the names of the pods of a workload.
func (r rollout) pods(workload string) []string {
	r.t.Helper()
	return strings.Fields(r.kubectl("--namespace", namespace, "get", "pods", "-l", "app.kubernetes.io/name="+workload,
		"-o", "jsonpath={.items[*].metadata.name}"))
}

func (r rollout) awaitPods(workload string, n int) {
	r.t.Helper()
	require.Eventually(r.t, func() bool { return len(r.pods(workload)) == n }, patience, tick, "%d pods of %s", n, workload)
}

// pretend does what a node would do: it says that the pod runs and is ready.
func (r rollout) pretend(pod string) {
	r.t.Helper()
	r.kubectl("--namespace", namespace, "patch", "pod", pod, "--subresource=status",
		"-p", `{"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}`)
}

func (r rollout) evict(pod string) (string, error) {
	r.t.Helper()
	eviction, err := json.Marshal(object{
		"apiVersion": "policy/v1", "kind": "Eviction", "metadata": object{"name": pod, "namespace": namespace},
	})
	require.NoError(r.t, err)
	return r.try(string(eviction), "create", "--raw", "/api/v1/namespaces/"+namespace+"/pods/"+pod+"/eviction", "-f", "-")
}

func TestControllers(t *testing.T) {
	r := rollout{startCluster(t)}
	r.prepare("a password")
	r.apply("k8s")
	r.startControllers()
	before := r.image()
	r.awaitRevision("1")

	t.Run("the admission takes the pods", func(t *testing.T) {
		r.awaitPods("upstream", 2)
		r.awaitPods("redis", 1)
		require.Equal(t, "5Gi", r.kubectl("--namespace", namespace, "get", "pvc", "data-redis-0", "-o", "jsonpath={.spec.resources.requests.storage}"))
	})
	t.Run("the autoscaler makes three gateways of none named", func(t *testing.T) {
		r.awaitPods("proxy-service", 3)
	})
	t.Run("an apply leaves their number alone", func(t *testing.T) {
		r.kubectl("--namespace", namespace, "scale", "deployment/proxy-service", "--replicas=4")
		r.apply("k8s")
		require.Equal(t, "4", r.get(".spec.replicas"))
		r.kubectl("--namespace", namespace, "scale", "deployment/proxy-service", "--replicas=3")
		r.awaitPods("proxy-service", 3)
	})
	t.Run("of three gateways that are ready one may be evicted", func(t *testing.T) {
		for _, pod := range r.pods("proxy-service") {
			r.pretend(pod)
		}
		require.Eventually(t, func() bool {
			return r.kubectl("--namespace", namespace, "get", "pdb", "proxy-service", "-o", "jsonpath={.status.disruptionsAllowed}") == "1"
		}, patience, tick)
		pods := r.pods("proxy-service")
		out, err := r.evict(pods[0])
		require.NoError(t, err, out)
		out, err = r.evict(pods[1])
		require.Error(t, err, out)
		require.Contains(t, out, "disruption budget")
	})
	t.Run("a release is rolled back", func(t *testing.T) {
		r.apply(write(t, object{
			"resources": []string{"k8s/base"},
			"images":    []any{object{"name": "resilient-gateway/resilience", "newTag": "broken"}},
		}))
		r.awaitRevision("2")
		require.Equal(t, "resilient-gateway/resilience:broken", r.image())

		out := r.kubectl("--namespace", namespace, "rollout", "undo", "deployment/proxy-service")
		require.Contains(t, out, "deployment.apps/proxy-service rolled back")
		require.Equal(t, before, r.image())
		r.awaitRevision("3")
	})
}

// A change of the static configuration reaches the gateways: they read it only at their start.
func TestAChangedConfigurationRollsTheGateways(t *testing.T) {
	name := func(folder string) any {
		o := find(t, decode(t, render(t, folder)), "Deployment", "proxy-service")
		return at(o, "spec", "template", "spec", "volumes", 0, "configMap", "name")
	}
	require.Regexp(t, `^traefik-[a-z0-9]{10}$`, name("k8s"))
	require.NotEqual(t, name("k8s"), name(withGatewayAPI(t)))
}
