package kubernetes

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// rollout is our gateway's Deployment under the real controllers.
type rollout struct{ *cluster }

func (r rollout) image() string {
	r.t.Helper()
	return r.get("deployment", "proxy-service", ".spec.template.spec.containers[0].image")
}

func (r rollout) awaitRevision(revision string) {
	r.t.Helper()
	require.Eventually(r.t, func() bool {
		return r.get("deployment", "proxy-service", `.metadata.annotations.deployment\.kubernetes\.io/revision`) == revision
	}, patience, tick, "revision %s", revision)
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

// pretend does what a node would do: it says that the pod runs and has long been ready.
func (r rollout) pretend(pod string) {
	r.t.Helper()
	r.kubectl("--namespace", namespace, "patch", "pod", pod, "--subresource=status",
		"-p", `{"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}`)
}

func (r rollout) evict(pod string) (string, error) {
	r.t.Helper()
	eviction, err := json.Marshal(object{
		"apiVersion": "policy/v1", "kind": "Eviction", "metadata": object{"name": pod, "namespace": namespace},
	})
	require.NoError(r.t, err)
	path := "/api/v1/namespaces/" + namespace + "/pods/" + pod + "/eviction"
	return r.try(string(eviction), "create", "--raw", path, "-f", "-")
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
		require.Equal(t, "5Gi", r.get("pvc", "data-redis-0", ".spec.resources.requests.storage"))
	})
	t.Run("the autoscaler makes three gateways of none named", func(t *testing.T) {
		r.awaitPods("proxy-service", 3)
	})
	t.Run("an apply leaves their number alone", func(t *testing.T) {
		r.kubectl("--namespace", namespace, "scale", "deployment/proxy-service", "--replicas=4")
		r.apply("k8s")
		require.Equal(t, "4", r.get("deployment", "proxy-service", ".spec.replicas"))
		r.kubectl("--namespace", namespace, "scale", "deployment/proxy-service", "--replicas=3")
		r.awaitPods("proxy-service", 3)
	})
	t.Run("of three gateways that are ready one may be evicted", func(t *testing.T) {
		for _, pod := range r.pods("proxy-service") {
			r.pretend(pod)
		}
		require.Eventually(t, func() bool {
			return r.get("pdb", "proxy-service", ".status.disruptionsAllowed") == "1"
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
			"images":    []any{object{"name": "resilient-gateway/resilience-gateway", "newTag": "broken"}},
		}))
		r.awaitRevision("2")
		require.Equal(t, "resilient-gateway/resilience-gateway:broken", r.image())

		out := r.kubectl("--namespace", namespace, "rollout", "undo", "deployment/proxy-service")
		require.Contains(t, out, "deployment.apps/proxy-service rolled back")
		require.Equal(t, before, r.image())
		r.awaitRevision("3")
	})
}
