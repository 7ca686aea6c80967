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
	require.GreaterOrEqual(c.t, made, 3)
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
		for kind, name := range map[string]string{
			"Deployment": "proxy-service", "HorizontalPodAutoscaler": "proxy-service", "IngressRoute": "proxy",
		} {
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
		require.Equal(t, "LoadBalancer", c.get("service", "proxy-service", ".spec.type"))
		require.Equal(t, "1000", c.get("middleware", "gateway", ".spec.plugin.resilience.rateLimit.capacity"))
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
