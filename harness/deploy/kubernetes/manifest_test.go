package kubernetes

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheOneFileIsWhatKustomizeRenders(t *testing.T) {
	content, err := os.ReadFile(filepath.Join(root(t), "dist", "k8s-deployment.yaml"))
	require.NoError(t, err, "run: make k8s")
	require.Equal(t, decode(t, render(t, "k8s")), decode(t, content))
}

// make k8s takes what is installed, and builds a kubectl for minutes only where nothing installed renders the tree.
func TestMakeK8s(t *testing.T) {
	kubectl := tool(t, "kubectl")
	good, old := `exec `+kubectl+` "$@"`, `echo 'unknown field "includeTemplates"' >&2; exit 1`
	for _, row := range []struct {
		name      string
		installed map[string]string // scripts by the name of the command
		want      []string          // what was called
	}{
		{"kubectl", map[string]string{"kubectl": good}, []string{"kubectl kustomize k8s"}},
		{"kubectl and kustomize", map[string]string{"kubectl": good, "kustomize": old}, []string{"kubectl kustomize k8s"}},
		{"kustomize", map[string]string{"kustomize": `exec ` + kubectl + ` kustomize "$2"`}, []string{"kustomize build k8s"}},
		{
			"an old kubectl", map[string]string{"kubectl": old},
			[]string{"kubectl kustomize k8s", "built kubectl", "dist/bin/kubectl kustomize k8s"},
		},
		{"nothing", nil, []string{"built kubectl", "dist/bin/kubectl kustomize k8s"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			folder, bin := copyTree(t), t.TempDir()
			for _, name := range []string{"bash", "make", "mktemp", "mkdir", "chmod", "sed", "cat", "mv", "rm", "dirname"} {
				path, err := exec.LookPath(name)
				require.NoError(t, err)
				require.NoError(t, os.Symlink(path, filepath.Join(bin, name)))
			}
			called := filepath.Join(t.TempDir(), "called")
			for name, script := range row.installed {
				writeCommand(t, filepath.Join(bin, name), `echo "`+name+` $*" >>`+called+"\n"+script)
			}
			writeCommand(t, filepath.Join(folder, "dist", "bin", "kubectl.built"), `echo "dist/bin/kubectl $*" >>`+called+"\n"+good)
			writeCommand(t, filepath.Join(folder, ".ci", "kubernetes"), `echo "built $*" >>`+called+`; mv dist/bin/kubectl.built dist/bin/kubectl`)

			out, err := makeK8s(folder, bin)
			require.NoError(t, err, out)
			require.Equal(t, row.name == "an old kubectl", strings.Contains(out, "kubectl kustomize does not render k8s"), out)
			got, err := os.ReadFile(called)
			require.NoError(t, err)
			require.Equal(t, strings.Join(row.want, "\n")+"\n", string(got))
			requireSameObjects(t, folder, "resilient-gateway/")
			left, err := filepath.Glob(filepath.Join(folder, "dist", "*.*"))
			require.NoError(t, err)
			require.Equal(t, []string{filepath.Join(folder, "dist", "k8s-deployment.yaml")}, left)
		})
	}
}

func TestMakeK8s_aRegistry(t *testing.T) {
	folder, bin := copyTree(t), t.TempDir()
	require.NoError(t, os.Symlink(tool(t, "kubectl"), filepath.Join(bin, "kubectl")))
	path := bin + ":" + os.Getenv("PATH")
	for _, registry := range []string{"registry.example.com:5000/you", "docker.io/you/"} {
		out, err := makeK8s(folder, path, "REGISTRY="+registry)
		require.NoError(t, err, out)
		requireSameObjects(t, folder, strings.TrimSuffix(registry, "/")+"/")
	}
	for _, registry := range []string{"https://docker.io/You", "a b", "you#", `you\1`} {
		out, err := makeK8s(folder, path, "REGISTRY="+registry)
		require.Error(t, err, registry)
		require.Contains(t, out, "REGISTRY="+registry+" is not the start of an image name; write it as registry.example.com/you")
		requireSameObjects(t, folder, "docker.io/you/")
	}
}

func makeK8s(folder, path string, variables ...string) (string, error) {
	command := exec.Command("make", append([]string{"--no-print-directory", "k8s"}, variables...)...)
	command.Dir = folder
	command.Env = []string{"PATH=" + path, "HOME=" + folder}
	out, err := command.CombinedOutput()
	return string(out), err
}

// requireSameObjects makes sure that the file of the folder has the objects of the tree, with images of that registry.
func requireSameObjects(t *testing.T, folder, registry string) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(folder, "dist", "k8s-deployment.yaml"))
	require.NoError(t, err)
	want := strings.ReplaceAll(string(render(t, "k8s")), "image: resilient-gateway/", "image: "+registry)
	require.Equal(t, decode(t, []byte(want)), decode(t, content))
	require.Equal(t, 2, strings.Count(string(content), "image: "+registry+"resilience-"))
	require.NotContains(t, want, "app.kubernetes.io/part-of: "+registry)
}
