// Package kubernetes tests our Kubernetes objects on a real API server, and the real Traefik with the rights that they
// give it. No pods run there: no node takes them.
package kubernetes

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/harness/gateway"
	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

const (
	namespace = "api-gateway"

	// patience is for a machine that is busy with other things.
	patience = 2 * time.Minute

	tick = 100 * time.Millisecond
)

// object is one of Kubernetes, or a part of one.
type object = map[string]any

func root(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../../..")
	require.NoError(t, err)
	return path
}

// tool returns the path of a command that the Makefile builds.
func tool(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(root(t), "dist", "bin", name)
	require.FileExists(t, path, "run: make test-deploy-k8s")
	return path
}

func freeAddress(t *testing.T) string {
	t.Helper()
	address, err := gateway.FreeAddress()
	require.NoError(t, err)
	return address
}

// start starts a command that ends with the test, and shows its last words where the test has failed.
func start(t *testing.T, command *exec.Cmd) {
	t.Helper()
	name, log := filepath.Base(command.Path), &gateway.Log{}
	process, err := gateway.Start(name, command, log)
	require.NoError(t, err)
	t.Cleanup(func() {
		process.Stop()
		if text := log.String(); t.Failed() {
			t.Logf("%s: ...%s", name, text[max(0, len(text)-4000):])
		}
	})
}

// cluster is a Kubernetes without nodes that was started for a test.
type cluster struct {
	t          *testing.T
	dir        string
	url        string
	token      string // of its administrator
	kubeconfig string
}

// startCluster starts etcd and an API server, on loopback.
func startCluster(t *testing.T) *cluster {
	t.Helper()
	address := freeAddress(t)
	c := &cluster{t: t, dir: t.TempDir(), url: "https://" + address, token: rand.Text()}
	host, port, _ := strings.Cut(address, ":")
	c.writeKey()
	c.write("tokens.csv", c.token+",admin,admin,system:masters\n")
	start(t, exec.Command(tool(t, "kube-apiserver"),
		"--etcd-servers="+startEtcd(t),
		"--bind-address="+host, "--secure-port="+port, "--cert-dir="+c.dir,
		// Never dialled: a server on loopback has no address to announce, and announces none.
		"--advertise-address=192.0.2.1", "--endpoint-reconciler-type=none",
		"--service-cluster-ip-range=10.96.0.0/16",
		"--authorization-mode=RBAC", "--token-auth-file="+c.path("tokens.csv"),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file="+c.path("key.pem"), "--service-account-signing-key-file="+c.path("key.pem"),
	))
	require.Eventually(t, c.isReady, patience, tick, "the API server")
	c.kubeconfig = c.writeKubeconfig("admin", c.token)
	return c
}

func startEtcd(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("etcd")
	require.NoError(t, err, "etcd is missing; install the package etcd-server")
	url := "http://" + freeAddress(t)
	command := exec.Command(path, "--data-dir="+t.TempDir(), "--listen-client-urls="+url, "--advertise-client-urls="+url,
		"--listen-peer-urls=http://"+freeAddress(t))
	command.Env = append(os.Environ(), "ETCD_UNSUPPORTED_ARCH=arm64") // or Debian's does not start on one
	start(t, command)
	return url
}

func (c *cluster) path(name string) string { return filepath.Join(c.dir, name) }

func (c *cluster) write(name, content string) string {
	c.t.Helper()
	require.NoError(c.t, os.WriteFile(c.path(name), []byte(content), 0o600))
	return c.path(name)
}

// writeKey writes the key that signs the tokens of service accounts.
func (c *cluster) writeKey() {
	c.t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(c.t, err)
	block := &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}
	c.write("key.pem", string(pem.EncodeToMemory(block)))
}

func (c *cluster) isReady() bool {
	ca, err := os.ReadFile(c.path("apiserver.crt"))
	if err != nil {
		return false
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	client := &http.Client{
		Timeout:   5 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true},
	}
	request, err := http.NewRequest(http.MethodGet, c.url+"/readyz", nil)
	if err != nil {
		return false
	}
	request.Header.Set("Authorization", "Bearer "+c.token)
	response, err := client.Do(request)
	if err != nil {
		return false
	}
	response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// writeKubeconfig writes what a client needs to be the owner of the token.
func (c *cluster) writeKubeconfig(user, token string) string {
	c.t.Helper()
	content, err := yaml.Marshal(object{
		"apiVersion": "v1", "kind": "Config", "current-context": "test",
		"clusters": []any{object{"name": "test", "cluster": object{
			"server": c.url, "certificate-authority": c.path("apiserver.crt"),
		}}},
		"users":    []any{object{"name": user, "user": object{"token": token}}},
		"contexts": []any{object{"name": "test", "context": object{"cluster": "test", "user": user}}},
	})
	require.NoError(c.t, err)
	return c.write(user+".kubeconfig", string(content))
}

// startControllers starts those that turn workloads into pods and keep count of them.
func (c *cluster) startControllers() {
	c.t.Helper()
	start(c.t, exec.Command(tool(c.t, "kube-controller-manager"),
		"--kubeconfig="+c.kubeconfig, "--leader-elect=false", "--secure-port=0",
		"--controllers=deployment-controller,replicaset-controller,statefulset-controller,"+
			"horizontal-pod-autoscaler-controller,disruption-controller",
	))
}

// try runs kubectl as the administrator, with the given input.
func (c *cluster) try(input string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	command := exec.CommandContext(ctx, tool(c.t, "kubectl"), args...)
	command.Dir = root(c.t)
	command.Env = append(os.Environ(), "KUBECONFIG="+c.kubeconfig, "HOME="+c.dir)
	command.Stdin = strings.NewReader(input)
	var out bytes.Buffer
	command.Stdout = &out
	command.Stderr = &out
	err := command.Run()
	return out.String(), err
}

func (c *cluster) kubectl(args ...string) string {
	c.t.Helper()
	out, err := c.try("", args...)
	require.NoError(c.t, err, "kubectl %s: %s", strings.Join(args, " "), out)
	return strings.TrimSpace(out)
}

// get returns a field of an object.
func (c *cluster) get(kind, name, path string) string {
	c.t.Helper()
	return c.kubectl("--namespace", namespace, "get", kind, name, "-o", "jsonpath={"+path+"}")
}

// prepare does what README.md asks for before the objects: the definitions, the namespace and the password.
func (c *cluster) prepare(password string) {
	c.t.Helper()
	c.kubectl("apply", "--server-side", "-f", traefikCRDs(c.t))
	c.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
	c.kubectl("apply", "--validate=strict", "-f", "k8s/base/namespace.yaml")
	c.kubectl("--namespace", namespace, "create", "secret", "generic", "redis", "--from-literal=password="+password)
}

// apply applies a folder and returns what became of each object.
func (c *cluster) apply(folder string) string {
	c.t.Helper()
	return c.kubectl("apply", "--validate=strict", "-k", folder)
}
