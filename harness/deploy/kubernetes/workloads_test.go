package kubernetes

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The promises that an API server does not check.
func TestWorkloads(t *testing.T) {
	for _, folder := range folders {
		t.Run(folder, func(t *testing.T) {
			objects := decode(t, render(t, folder))
			gateway := find(t, objects, "Deployment", "proxy-service")
			upstream := find(t, objects, "Deployment", "upstream")
			redis := find(t, objects, "StatefulSet", "redis")

			require.NotContains(t, gateway["spec"], "replicas", "the autoscaler owns them")
			workloads := []object{gateway, upstream, redis}
			want := object{"address": "redis:6379", "passwordEnv": "REDIS_PASSWORD"}
			if folder == withSentinels {
				workloads = append(workloads, find(t, objects, "StatefulSet", "sentinel"))
				requireSpread(t, objects)
				want["address"] = "sentinel-0.sentinel:26379,sentinel-1.sentinel:26379,sentinel-2.sentinel:26379"
				want["sentinel"] = object{"master": "mymaster", "passwordEnv": "REDIS_PASSWORD"}
			}
			for _, workload := range workloads {
				requireCareful(t, workload)
			}
			requireProbes(t, gateway)
			requireMemory(t, gateway)
			requireTimeToEnd(t, gateway)
			requireImages(t, workloads...)
			require.Equal(t, "5Gi", at(redis, "spec", "volumeClaimTemplates", 0, "spec", "resources", "requests", "storage"))

			requireLabels(t, objects)
			for _, o := range objects {
				require.NotEqual(t, "Secret", o["kind"], "secrets are no part of the tree")
				require.NotEqual(t, "ClusterRole", o["kind"], "a Role is enough")
				if o["kind"] != "Namespace" {
					require.Equal(t, namespace, at(o, "metadata", "namespace"), at(o, "metadata", "name"))
				}
			}
			settings := at(find(t, objects, "Middleware", "gateway"), "spec", "plugin", "resilience", "redis")
			require.Equal(t, want, settings)
		})
	}
}

// What a selector or the name of a port leads to, no API server checks.
func TestWhatIsNamedIsThere(t *testing.T) {
	for _, folder := range folders {
		objects := decode(t, render(t, folder))
		pods := map[string]any{} // the template by the name that it is labelled with
		for _, o := range objects {
			if o["kind"] == "Deployment" || o["kind"] == "StatefulSet" {
				pods[at(o, "spec", "template", "metadata", "labels", nameLabel).(string)] = at(o, "spec", "template", "spec")
			}
		}
		named := func(selector any) any {
			t.Helper()
			require.Contains(t, pods, at(selector, nameLabel))
			return pods[at(selector, nameLabel).(string)]
		}
		seen := map[any]int{}
		for _, o := range objects {
			seen[o["kind"]]++
			switch o["kind"] {
			case "Service":
				requirePort(t, named(at(o, "spec", "selector")), at(o, "spec", "ports", 0, "targetPort"))
			case "PodDisruptionBudget":
				named(at(o, "spec", "selector", "matchLabels"))
			case "NetworkPolicy":
				requirePolicy(t, o, named)
			}
		}
		want := map[any]int{"Service": 3, "NetworkPolicy": 4}
		if folder == withSentinels {
			want = map[any]int{"Service": 4, "NetworkPolicy": 7}
		}
		for kind, n := range want {
			require.Equal(t, n, seen[kind], "%s: %s", folder, kind)
		}
	}
}

const nameLabel = "app.kubernetes.io/name"

// requireLabels: each object and pod says what it is and what it belongs to. A cluster refuses a change of selectors and of
// volumeClaimTemplates, so these have the labels of the first release.
func requireLabels(t *testing.T, objects []object) {
	t.Helper()
	known := map[any]any{
		"proxy-service": "gateway", "redis": "cache", "sentinel": "cache", "upstream": "service", "api-gateway": "namespace", "default-deny": "namespace",
	}
	for _, o := range objects {
		labels, _ := at(o, "metadata", "labels").(object)
		name := at(o, "metadata", "name")
		require.Contains(t, known, labels[nameLabel], name)
		require.Equal(t, known[labels[nameLabel]], labels["app.kubernetes.io/component"], name)
		require.Equal(t, "resilient-gateway", labels["app.kubernetes.io/part-of"], name)
		require.Equal(t, "kustomize", labels["app.kubernetes.io/managed-by"], name)
		if template := at(o, "spec", "template", "metadata", "labels"); template != nil {
			require.Equal(t, object{
				nameLabel: labels[nameLabel], "app.kubernetes.io/component": labels["app.kubernetes.io/component"],
				"app.kubernetes.io/part-of": "resilient-gateway",
			}, template, name)
			require.Equal(t, object{"matchLabels": object{nameLabel: name}}, at(o, "spec", "selector"))
		}
		if o["kind"] == "StatefulSet" {
			require.Equal(t, object{"app.kubernetes.io/part-of": "resilient-gateway"}, at(o, "spec", "volumeClaimTemplates", 0, "metadata", "labels"))
		}
	}
}

// What the components add is labelled as the rest, and relabels nothing.
func TestComponents_labels(t *testing.T) {
	for _, component := range []string{"gateway-api", "other-namespace", "sentinel"} {
		folder := write(t, object{"resources": []string{"k8s/base"}, "components": []string{"k8s/components/" + component}})
		requireLabels(t, decode(t, render(t, folder)))
	}
}

func requirePolicy(t *testing.T, policy object, named func(selector any) any) {
	t.Helper()
	own := at(policy, "spec", "podSelector", "matchLabels")
	if own == nil {
		all := object{"podSelector": object{}, "policyTypes": []any{"Ingress", "Egress"}}
		require.Equal(t, all, policy["spec"], "all is denied")
		return
	}
	ingress, _ := at(policy, "spec", "ingress").([]any)
	egress, _ := at(policy, "spec", "egress").([]any)
	require.NotEmpty(t, append(ingress, egress...))
	for _, rule := range ingress {
		if from := at(rule, "from", 0, "podSelector", "matchLabels"); from != nil {
			named(from)
		}
		requirePort(t, named(own), at(rule, "ports", 0, "port"))
	}
	for _, rule := range egress {
		if to := at(rule, "to", 0, "podSelector", "matchLabels"); to != nil {
			requirePort(t, named(to), at(rule, "ports", 0, "port"))
		}
	}
}

func requirePort(t *testing.T, pod, port any) {
	t.Helper()
	var names []any
	for _, p := range at(pod, "containers", 0, "ports").([]any) {
		names = append(names, at(p, "name"))
	}
	require.Contains(t, names, port)
}

func TestScale(t *testing.T) {
	for folder, want := range map[string][3]int{
		"k8s": {3, 10, 2}, "k8s/overlays/production": {3, 10, 2}, "k8s/overlays/staging": {2, 4, 1}, withSentinels: {3, 10, 2},
	} {
		objects := decode(t, render(t, folder))
		autoscaler := find(t, objects, "HorizontalPodAutoscaler", "proxy-service")
		require.Equal(t, want[0], at(autoscaler, "spec", "minReplicas"), folder)
		require.Equal(t, want[1], at(autoscaler, "spec", "maxReplicas"), folder)
		require.Equal(t, "cpu", at(autoscaler, "spec", "metrics", 0, "resource", "name"))
		require.Equal(t, 70, at(autoscaler, "spec", "metrics", 0, "resource", "target", "averageUtilization"))
		require.Equal(t, "memory", at(autoscaler, "spec", "metrics", 1, "resource", "name"))
		require.Equal(t, 80, at(autoscaler, "spec", "metrics", 1, "resource", "target", "averageUtilization"))
		budget := find(t, objects, "PodDisruptionBudget", "proxy-service")
		require.Equal(t, want[2], at(budget, "spec", "minAvailable"), folder)
		require.Less(t, want[2], want[0], "a node can be drained")
	}
}

// requireSpread: no node has two of the servers, or two of the sentinels, and one of each may be evicted.
func requireSpread(t *testing.T, objects []object) {
	t.Helper()
	for _, name := range []string{"redis", "sentinel"} {
		own := object{"matchLabels": object{nameLabel: name}}
		workload := find(t, objects, "StatefulSet", name)
		require.Equal(t, 3, at(workload, "spec", "replicas"), name)
		apart := at(workload, "spec", "template", "spec", "affinity", "podAntiAffinity", "requiredDuringSchedulingIgnoredDuringExecution")
		require.Equal(t, []any{object{"topologyKey": "kubernetes.io/hostname", "labelSelector": own}}, apart, name)
		budget := find(t, objects, "PodDisruptionBudget", name)
		require.Equal(t, 1, at(budget, "spec", "maxUnavailable"), name)
		require.Equal(t, own, at(budget, "spec", "selector"), name)
		require.Equal(t, true, at(find(t, objects, "Service", name), "spec", "publishNotReadyAddresses"), name)
	}
}

// The image's user is another than Kubernetes would take by itself, and nothing may be written but what is named.
func requireCareful(t *testing.T, workload object) {
	t.Helper()
	pod := at(workload, "spec", "template", "spec")
	container := at(pod, "containers", 0)
	require.Equal(t, true, at(container, "securityContext", "readOnlyRootFilesystem"))
	require.NotNil(t, at(pod, "securityContext", "runAsUser"))
	require.Equal(t, at(workload, "metadata", "name"), at(pod, "serviceAccountName"))
	require.Equal(t, at(workload, "metadata", "name") == "proxy-service", at(pod, "automountServiceAccountToken"))
	require.NotContains(t, container, "workingDir", "the plugin is looked for below that of the image")
	for _, kind := range []string{"requests", "limits"} {
		for _, resource := range []string{"cpu", "memory", "ephemeral-storage"} {
			require.NotNil(t, at(container, "resources", kind, resource))
		}
	}
	for _, probe := range []string{"startupProbe", "readinessProbe", "livenessProbe"} {
		require.Contains(t, container, probe)
	}
}

// requireProbes: a gateway is ready once it has routes, and is restarted only if Traefik itself does not answer. None of the
// probes asks Redis or a service.
func requireProbes(t *testing.T, workload object) {
	t.Helper()
	for probe, path := range map[string]string{"startupProbe": "/ping", "readinessProbe": "/ready", "livenessProbe": "/ping"} {
		asked := at(workload, "spec", "template", "spec", "containers", 0, probe, "httpGet")
		require.Equal(t, object{"path": path, "port": "internal"}, asked, probe)
	}
	container := at(workload, "spec", "template", "spec", "containers", 0)
	seconds := func(probe string) int {
		return at(container, probe, "periodSeconds").(int) * at(container, probe, "failureThreshold").(int)
	}
	require.Less(t, seconds("readinessProbe"), seconds("livenessProbe"), "it is left out before it is restarted")
}

// Go lets garbage gather, but collects it before the autoscaler would make another gateway for it.
func requireMemory(t *testing.T, workload object) {
	t.Helper()
	container := at(workload, "spec", "template", "spec", "containers", 0)
	limit := at(container, "resources", "limits", "memory").(string)
	require.Equal(t, limit, at(container, "resources", "requests", "memory"), "the autoscaler measures by the request")
	variables := map[any]any{}
	for _, variable := range at(container, "env").([]any) {
		variables[at(variable, "name")] = at(variable, "value")
	}
	require.Equal(t, "400", variables["GOGC"])
	require.Equal(t, "/run/secrets/redis", variables["RESILIENCE_SECRETS_DIR"], "and not the token of its account, which is below /run/secrets")
	own, _ := variables["GOMEMLIMIT"].(string)
	require.InDelta(t, 0.7*mebibytes(t, limit), mebibytes(t, strings.TrimSuffix(own, "B")), 5, "the autoscaler's bound is 0.8")
}

func mebibytes(t *testing.T, quantity string) float64 {
	t.Helper()
	for unit, factor := range map[string]float64{"Mi": 1, "Gi": 1024} {
		if number, ok := strings.CutSuffix(quantity, unit); ok {
			n, err := strconv.ParseFloat(number, 64)
			require.NoError(t, err)
			return n * factor
		}
	}
	require.Fail(t, "not a quantity", quantity)
	return 0
}

// A gateway is killed only after its load balancers have left it out and its requests have had their time.
func requireTimeToEnd(t *testing.T, workload object) {
	t.Helper()
	pod := at(workload, "spec", "template", "spec")
	static := read(t, "k8s/base/gateway/traefik.yml")
	text := at(static, "entryPoints", "web", "transport", "lifeCycle", "graceTimeOut").(string)
	grace, err := time.ParseDuration(text)
	require.NoError(t, err)
	sleep := at(pod, "containers", 0, "lifecycle", "preStop", "sleep", "seconds").(int)
	require.Greater(t, at(pod, "terminationGracePeriodSeconds"), sleep+int(grace.Seconds()))
}

func requireImages(t *testing.T, workloads ...object) {
	t.Helper()
	for _, workload := range workloads {
		image := at(workload, "spec", "template", "spec", "containers", 0, "image").(string)
		_, tag, _ := strings.Cut(image, ":")
		require.NotEmpty(t, tag, image)
		require.NotEqual(t, "latest", tag, image)
	}
}
