package kubernetes

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestTyped types what README.md and the head of the one file tell to type, in that order, from an empty cluster to a rollout
// that is complete. Building and pushing images is noted instead: no pod runs here.
func TestTyped(t *testing.T) {
	t.Run("README", func(t *testing.T) {
		d := newDesk(t)
		d.typeAll(typedInReadme(t))
		require.Equal(t, []string{
			"build --target gateway --tag registry.example.com/you/resilience-gateway:1.0.0 .",
			"push registry.example.com/you/resilience-gateway:1.0.0",
			"build --target upstream --tag registry.example.com/you/resilience-upstream:1.0.0 .",
			"push registry.example.com/you/resilience-upstream:1.0.0",
		}, d.noted("docker"))
		require.Equal(t, "registry.example.com/you/resilience-gateway:1.0.0", rollout{d.cluster}.image())
	})
	t.Run("the head of the file", func(t *testing.T) {
		content, err := os.ReadFile(filepath.Join(root(t), "dist", "k8s-deployment.yaml"))
		require.NoError(t, err, "run: make k8s")
		d := newDesk(t)
		require.NoError(t, os.WriteFile(filepath.Join(d.folder, "k8s-deployment.yaml"), content, 0o644))
		d.typeAll(typedInHead(string(content)))
	})
}

// typedInReadme returns the commands of the section "On Kubernetes".
func typedInReadme(t *testing.T) (commands []string) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root(t), "README.md"))
	require.NoError(t, err)
	_, section, ok := strings.Cut(string(content), "\n### On Kubernetes\n")
	require.True(t, ok)
	section, _, _ = strings.Cut(section, "\n## ")
	for _, found := range regexp.MustCompile(`(?m)^\$ (.+)$`).FindAllStringSubmatch(section, -1) {
		commands = append(commands, found[1])
	}
	return commands
}

// typedInHead returns the commands in the comment that a file begins with.
func typedInHead(file string) (commands []string) {
	head, _, _ := strings.Cut(file, "\napiVersion:")
	for _, found := range regexp.MustCompile(`(?m)^#   (.+)$`).FindAllStringSubmatch(head, -1) {
		commands = append(commands, found[1])
	}
	return commands
}

// desk is where an operator sits: a copy of the tree, the commands, and an empty cluster with its controllers.
type desk struct {
	*cluster
	folder string
	bin    string
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	d := &desk{cluster: startCluster(t), folder: copyTree(t), bin: t.TempDir()}
	d.startControllers()
	require.NoError(t, os.Symlink(tool(t, "kubectl"), filepath.Join(d.bin, "kubectl")))
	d.command("docker", `echo "$*" >>"$0.log"`)
	return d
}

// copyTree copies what make k8s needs.
func copyTree(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	for _, name := range []string{".ci", "k8s"} {
		require.NoError(t, os.CopyFS(filepath.Join(folder, name), os.DirFS(filepath.Join(root(t), name))))
	}
	makefile, err := os.ReadFile(filepath.Join(root(t), "Makefile"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(folder, "Makefile"), makefile, 0o644))
	return folder
}

func (d *desk) command(name, script string) { writeCommand(d.t, filepath.Join(d.bin, name), script) }

func writeCommand(t *testing.T, path, script string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte("#!/bin/bash\n"+script+"\n"), 0o755))
}

// noted returns the arguments of each call of a command that only notes them.
func (d *desk) noted(name string) []string {
	d.t.Helper()
	content, err := os.ReadFile(filepath.Join(d.bin, name+".log"))
	require.NoError(d.t, err)
	return strings.Split(strings.TrimSpace(string(content)), "\n")
}

// definitions are the two ways to name Traefik's definitions, which lie on a server elsewhere.
var definitions = regexp.MustCompile(`-k k8s/crds|-f https://raw\.githubusercontent\.com/\S+`)

// typeAll types the commands one after the other, and does meanwhile what a node would do. The first that fails ends it.
func (d *desk) typeAll(commands []string) {
	d.t.Helper()
	require.NotEmpty(d.t, commands)
	script := strings.Join(commands, "\n")
	require.Len(d.t, definitions.FindAllString(script, -1), 1)
	script = definitions.ReplaceAllLiteralString(script, "-f "+traefikCRDs(d.t))

	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	shell := exec.CommandContext(ctx, "bash", "-euxo", "pipefail", "-c", script)
	shell.Dir = d.folder
	shell.Env = append(os.Environ(), "KUBECONFIG="+d.kubeconfig, "HOME="+d.dir, "PATH="+d.bin+":"+os.Getenv("PATH"))
	var out bytes.Buffer
	shell.Stdout = &out
	shell.Stderr = &out
	require.NoError(d.t, shell.Start())
	ended := make(chan error, 1)
	go func() { ended <- shell.Wait() }()
	for ticker := time.NewTicker(time.Second); ; {
		select {
		case err := <-ended:
			require.NoError(d.t, err, out.String())
			require.NotContains(d.t, out.String(), "Warning")
			require.Contains(d.t, out.String(), `deployment "proxy-service" successfully rolled out`)
			return
		case <-ticker.C:
			d.beANode()
		}
	}
}

// beANode says of each gateway that it runs and is ready.
func (d *desk) beANode() {
	for _, pod := range (rollout{d.cluster}).pods("proxy-service") {
		(rollout{d.cluster}).pretend(pod)
	}
}
