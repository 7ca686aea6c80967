package kubernetes

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

// folders are those that are made to be applied.
var folders = []string{"k8s", "k8s/overlays/staging", "k8s/overlays/production", withSentinels}

const withSentinels = "k8s/overlays/sentinel"

// render returns what kustomize makes of a folder.
func render(t *testing.T, folder string) []byte {
	t.Helper()
	command := exec.Command(tool(t, "kubectl"), "kustomize", folder)
	command.Dir = root(t)
	var stderr bytes.Buffer
	command.Stderr = &stderr
	out, err := command.Output()
	require.NoError(t, err, stderr.String())
	require.Empty(t, stderr.String(), "warnings of kustomize")
	return out
}

func decode(t *testing.T, content []byte) []object {
	t.Helper()
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	var objects []object
	for {
		var o object
		err := decoder.Decode(&o)
		if errors.Is(err, io.EOF) {
			return objects
		}
		require.NoError(t, err)
		objects = append(objects, o)
	}
}

func read(t *testing.T, path string) object {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root(t), path))
	require.NoError(t, err)
	var o object
	require.NoError(t, yaml.Unmarshal(content, &o), path)
	return o
}

// find returns the object of that kind and name.
func find(t *testing.T, objects []object, kind, name string) object {
	t.Helper()
	for _, o := range objects {
		if o["kind"] == kind && at(o, "metadata", "name") == name {
			return o
		}
	}
	require.Fail(t, "no such object", "%s %s", kind, name)
	return nil
}

// at returns what is at the end of a path of names and indices, or nil.
func at(value any, path ...any) any {
	for _, step := range path {
		switch step := step.(type) {
		case string:
			m, _ := value.(object)
			value = m[step]
		case int:
			l, _ := value.([]any)
			if step >= len(l) {
				return nil
			}
			value = l[step]
		}
	}
	return value
}

// goModule returns the version and the folder of a module that the harness builds with.
func goModule(t *testing.T, path string) (version, dir string) {
	t.Helper()
	command := exec.Command("go", "list", "-m", "-f", "{{.Version}} {{.Dir}}", path)
	command.Dir = filepath.Join(root(t), "harness")
	out, err := command.Output()
	require.NoError(t, err)
	version, dir, _ = strings.Cut(strings.TrimSpace(string(out)), " ")
	require.DirExists(t, dir)
	return version, dir
}

// traefikCRDs returns the file that k8s/crds names, as it lies in the module of the Traefik that we test with.
func traefikCRDs(t *testing.T) string {
	t.Helper()
	version, dir := goModule(t, "github.com/traefik/traefik/v3")
	resources, _ := read(t, "k8s/crds/kustomization.yaml")["resources"].([]any)
	require.Len(t, resources, 1)
	path, ok := strings.CutPrefix(resources[0].(string), "https://raw.githubusercontent.com/traefik/traefik/"+version+"/")
	require.True(t, ok, "k8s/crds is not of the version that we test with, %s", version)
	file := filepath.Join(dir, path)
	require.FileExists(t, file)
	return file
}

// gatewayCRDs returns the folder that k8s/crds/gateway-api names, as it lies in the module of the version that Traefik
// is built with.
func gatewayCRDs(t *testing.T) string {
	t.Helper()
	version, dir := goModule(t, "sigs.k8s.io/gateway-api")
	resources, _ := read(t, "k8s/crds/gateway-api/kustomization.yaml")["resources"].([]any)
	require.Equal(t, []any{"https://github.com/kubernetes-sigs/gateway-api//config/crd?ref=" + version}, resources)
	return filepath.Join(dir, "config", "crd")
}

func TestDefinitionsAreOfThePinnedVersions(t *testing.T) {
	content, err := os.ReadFile(traefikCRDs(t))
	require.NoError(t, err)
	require.Len(t, decode(t, content), 10)
	require.DirExists(t, gatewayCRDs(t))
}

func TestOneObjectAFile(t *testing.T) {
	configuration := regexp.MustCompile(`/(kustomization\.yaml|traefik\.yml|redis\.conf|resilience\.json|README\.md)$`)
	kustomizations := map[string]string{} // text by folder
	var files []string
	base := filepath.Join(root(t), "k8s")
	require.NoError(t, filepath.WalkDir(base, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if filepath.Base(path) == "kustomization.yaml" {
			kustomizations[filepath.Dir(path)] = string(content)
		} else if !configuration.MatchString(path) {
			files = append(files, path)
			objects := decode(t, content)
			require.Len(t, objects, 1, path)
			require.NotEmpty(t, at(objects[0], "metadata", "name"), path)
		}
		return err
	}))
	require.NotEmpty(t, files)
	for _, file := range files {
		used := false
		for folder, text := range kustomizations {
			name, err := filepath.Rel(folder, file)
			used = used || err == nil && regexp.MustCompile(`(?m)[ /]`+regexp.QuoteMeta(name)+`$`).MatchString(text)
		}
		require.True(t, used, "%s is in no kustomization", file)
	}
}

// What the gateway is told in a cluster is what it is told elsewhere, but for where its routes come from.
func TestStaticConfiguration(t *testing.T) {
	image := read(t, "traefik/traefik.yml")
	require.Contains(t, image, "providers")
	delete(image, "providers")
	delete(image, "api")

	base := read(t, "k8s/base/gateway/traefik.yml")
	crd := object{
		"namespaces": []any{namespace}, "ingressClass": "resilience",
		"disableClusterScopeResources": true, "allowEmptyServices": true,
	}
	require.Equal(t, object{"kubernetesCRD": crd}, base["providers"])
	require.Equal(t, true, at(base, "experimental", "abortOnPluginFailure"))
	delete(base, "providers")
	require.Equal(t, image, base)

	other := read(t, "k8s/components/other-namespace/traefik.yml")
	require.Equal(t, true, at(other, "providers", "kubernetesCRD", "allowExternalNameServices"))
	delete(at(other, "providers", "kubernetesCRD").(object), "allowExternalNameServices")
	require.Equal(t, object{"kubernetesCRD": crd}, other["providers"])
	delete(other, "providers")
	require.Equal(t, image, other)

	component := read(t, "k8s/components/gateway-api/traefik.yml")
	require.Equal(t, crd, at(component, "providers", "kubernetesCRD"))
	require.Equal(t, []any{namespace}, at(component, "providers", "kubernetesGateway", "namespaces"))
	delete(component, "providers")
	require.Equal(t, image, component)
}
