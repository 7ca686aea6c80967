package workflows

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

const patience = 30 * time.Second

// stand-in for deploy.sh, which the tests of Compose run for real: it notes how it was called, and ends as it is told. It
// waits no longer than the test does, and takes its time between the lines, so that a pipe that is broken is noticed.
const deployStub = `#!/usr/bin/env bash
exec 9<deploy.sh
flock --nonblock 9 || exit 9
printf '%s\n' "$*" "$ENV_FILE" "$GATEWAY_IMAGE" "$UPSTREAM_IMAGE" >called
echo deploy: begun
for ((i = 0; i < 600; i++)); do
	[ -e wait ] || break
	sleep 0.05
done
for i in 1 2 3; do
	echo "deploy: line $i"
	sleep 0.2
done
touch finished
exit "$(cat code 2>/dev/null || echo 0)"
`

func tryDeploy(t *testing.T, d *desk) {
	_, err := exec.LookPath("ssh")
	require.NoError(t, err, "OpenSSH's client is missing")
	d.dir = copySource(t)
	require.NoError(t, os.WriteFile(filepath.Join(d.dir, "deploy.sh"), []byte(deployStub), 0o755))

	// deployTo runs the step against the host, with some variables in another way.
	deployTo := func(t *testing.T, h *host, changes map[string]string) result {
		t.Helper()
		temporary := t.TempDir()
		result := d.run(t, with(with(images, h.access), changes), "TMPDIR="+temporary)
		left, err := os.ReadDir(temporary)
		require.NoError(t, err)
		require.Empty(t, left, "the key is left behind")
		require.NotContains(t, result.output, "PRIVATE KEY")
		return result
	}

	t.Run("deploys", func(t *testing.T) {
		h := startHost(t)
		result := deployTo(t, h, nil)
		require.Zero(t, result.code, result.output)
		require.Contains(t, result.output, "deploy: line 3")
		require.Equal(t, "prod\n.env.host\n"+gatewayImage+"\n"+upstreamImage+"\n", h.file(t, "called"))
		require.Equal(t, read(t, filepath.Join(d.dir, "docker-compose.prod.yml")), h.file(t, "docker-compose.prod.yml"))
		require.Contains(t, h.file(t, "deploy.log"), "deploy: line 3")
		require.Equal(t, "REDIS_PASSWORD=theirs\n", h.file(t, ".env.host"))

		require.Zero(t, deployTo(t, h, nil).code, "once more")
	})
	t.Run("fails as deploy.sh fails", func(t *testing.T) {
		h := startHost(t)
		for _, code := range []int{1, 2} {
			h.write(t, "code", string(rune('0'+code)))
			result := deployTo(t, h, nil)
			require.Equal(t, code, result.code, result.output)
		}
	})
	t.Run("refuses another host", func(t *testing.T) {
		h, other := startHost(t), startHost(t)
		known := strings.Fields(other.access["KNOWN_HOSTS"])
		known[0] = strings.Fields(h.access["KNOWN_HOSTS"])[0]
		for _, lines := range []string{strings.Join(known, " "), other.access["KNOWN_HOSTS"]} {
			result := deployTo(t, h, map[string]string{"KNOWN_HOSTS": lines})
			require.NotZero(t, result.code)
			require.Contains(t, result.output, "Host key verification failed")
		}
		require.Zero(t, h.commands())
	})
	t.Run("is refused with another key", func(t *testing.T) {
		h, other := startHost(t), startHost(t)
		require.NotZero(t, deployTo(t, h, map[string]string{"DEPLOY_KEY": other.access["DEPLOY_KEY"]}).code)
		require.NotZero(t, deployTo(t, h, map[string]string{"DEPLOY_USER": "root"}).code)
		require.Zero(t, h.commands())
	})
	t.Run("takes digests only", func(t *testing.T) {
		h := startHost(t)
		for _, image := range []string{
			"docker.io/acme/resilience-gateway:latest", "docker.io/acme/resilience-gateway@", "x; touch broken #@" + gatewayDigest, gatewayImage + " true",
		} {
			result := deployTo(t, h, map[string]string{"GATEWAY_IMAGE": image})
			require.NotZero(t, result.code)
			require.Contains(t, result.output, "does not name a digest")
		}
		require.Zero(t, h.commands())
	})
	t.Run("wants every variable", func(t *testing.T) {
		h := startHost(t)
		for _, name := range []string{"DEPLOY_KEY", "DEPLOY_HOST", "DEPLOY_USER", "KNOWN_HOSTS", "GATEWAY_IMAGE", "UPSTREAM_IMAGE"} {
			result := deployTo(t, h, map[string]string{name: ""})
			require.NotZero(t, result.code)
			require.Contains(t, result.output, name+" is not set")
		}
		require.Zero(t, h.commands())
	})
	t.Run("wants the settings of the host", func(t *testing.T) {
		h := startHost(t)
		require.NoError(t, os.Remove(h.path(".env.host")))
		result := deployTo(t, h, nil)
		require.NotZero(t, result.code)
		require.Contains(t, result.output, ".env.host is missing")
		require.NoFileExists(t, h.path("deploy.sh"))
	})
	t.Run("leaves a deployment under way alone", func(t *testing.T) {
		h := startHost(t)
		h.write(t, "deploy.sh", "theirs")
		lock := exec.Command("flock", h.path("deploy.sh"), "sh", "-c", "echo locked; cat")
		input, err := lock.StdinPipe()
		require.NoError(t, err)
		output, err := lock.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, lock.Start())
		t.Cleanup(func() {
			_ = input.Close()
			_ = lock.Wait()
		})
		_, err = output.Read(make([]byte, 6))
		require.NoError(t, err)

		result := deployTo(t, h, nil)
		require.NotZero(t, result.code)
		require.Contains(t, result.output, "another deployment is under way")
		require.Equal(t, "theirs", h.file(t, "deploy.sh"))
	})
	t.Run("comes to its end without us", func(t *testing.T) {
		h := startHost(t)
		deployAndHangUp(t, h, deployTo)
		require.FileExists(t, h.path("finished"))
		require.Contains(t, h.file(t, "deploy.log"), "deploy: line 3")
	})
	t.Run("would not, were it not for tee -p", func(t *testing.T) {
		script := filepath.Join(d.dir, ".github", "scripts", "deploy-to-host")
		before := read(t, script)
		changed := strings.Replace(before, "tee -p deploy.log'", "tee deploy.log'", 1)
		require.NotEqual(t, before, changed)
		require.NoError(t, os.WriteFile(script, []byte(changed), 0o755))
		defer os.WriteFile(script, []byte(before), 0o755)
		h := startHost(t)
		deployAndHangUp(t, h, deployTo)
		require.NoFileExists(t, h.path("finished"))
	})
}

// deployAndHangUp breaks the connection in the middle of a deployment, and waits until nothing of it runs on the host.
func deployAndHangUp(t *testing.T, h *host, deployTo func(*testing.T, *host, map[string]string) result) {
	t.Helper()
	h.write(t, "wait", "")
	t.Cleanup(func() { _ = os.Remove(h.path("wait")) })
	ended := make(chan result, 1)
	go func() {
		defer close(ended)
		ended <- deployTo(t, h, nil)
	}()
	require.Eventually(t, func() bool {
		log, _ := os.ReadFile(h.path("deploy.log"))
		return strings.Contains(string(log), "begun")
	}, patience, 20*time.Millisecond)
	h.hangUp()
	require.NotZero(t, (<-ended).code, "a broken connection is a failure")
	require.NoError(t, os.Remove(h.path("wait")))
	h.processes.Wait()
}

// host is a machine that is reached by SSH, with a folder as the home of its one user.
type host struct {
	home      string
	access    map[string]string // what the step needs to reach it
	config    *ssh.ServerConfig
	processes sync.WaitGroup

	mu          sync.Mutex
	connections []net.Conn
	run         int
}

func startHost(t *testing.T) *host {
	t.Helper()
	h := &host{home: t.TempDir()}
	require.NoError(t, os.Mkdir(h.path(""), 0o755))
	h.write(t, ".env.host", "REDIS_PASSWORD=theirs\n")

	_, hostKey, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	signer, err := ssh.NewSignerFromKey(hostKey)
	require.NoError(t, err)
	public, userKey, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	allowed, err := ssh.NewPublicKey(public)
	require.NoError(t, err)
	block, err := ssh.MarshalPrivateKey(userKey, "deploy")
	require.NoError(t, err)

	h.config = &ssh.ServerConfig{
		PublicKeyCallback: func(meta ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			if meta.User() != "deploy" || string(key.Marshal()) != string(allowed.Marshal()) {
				return nil, errors.New("unknown")
			}
			return nil, nil
		},
	}
	h.config.AddHostKey(signer)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address, port, _ := strings.Cut(listener.Addr().String(), ":")
	h.access = map[string]string{
		// GitHub gives a secret without the newline at its end.
		"DEPLOY_KEY":  strings.TrimSpace(string(pem.EncodeToMemory(block))),
		"DEPLOY_HOST": address,
		"DEPLOY_PORT": port,
		"DEPLOY_USER": "deploy",
		"KNOWN_HOSTS": knownhosts.Line([]string{listener.Addr().String()}, signer.PublicKey()),
	}
	t.Cleanup(func() {
		_ = listener.Close()
		h.hangUp()
		h.processes.Wait()
	})
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			h.mu.Lock()
			h.connections = append(h.connections, connection)
			h.mu.Unlock()
			go h.serve(connection)
		}
	}()
	return h
}

func (h *host) path(name string) string { return filepath.Join(h.home, "resilience", name) }

func (h *host) file(t *testing.T, name string) string {
	t.Helper()
	return read(t, h.path(name))
}

func (h *host) write(t *testing.T, name, content string) {
	t.Helper()
	require.NoError(t, os.WriteFile(h.path(name), []byte(content), 0o755))
}

// commands says how many were begun.
func (h *host) commands() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.run
}

func (h *host) hangUp() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, connection := range h.connections {
		_ = connection.Close()
	}
}

func (h *host) serve(connection net.Conn) {
	server, channels, requests, err := ssh.NewServerConn(connection, h.config)
	if err != nil {
		_ = connection.Close()
		return
	}
	defer server.Close()
	go ssh.DiscardRequests(requests)
	for offered := range channels {
		if offered.ChannelType() != "session" {
			_ = offered.Reject(ssh.UnknownChannelType, "")
			continue
		}
		channel, requests, err := offered.Accept()
		if err != nil {
			return
		}
		go func() {
			for request := range requests {
				var wanted struct{ Command string }
				if request.Type != "exec" || ssh.Unmarshal(request.Payload, &wanted) != nil {
					_ = request.Reply(false, nil)
					continue
				}
				_ = request.Reply(true, nil)
				h.processes.Add(1)
				go h.execute(channel, wanted.Command)
			}
		}()
	}
}

// execute runs a command as sshd does: by the shell, in the home, with little in the environment.
func (h *host) execute(channel ssh.Channel, line string) {
	defer h.processes.Done()
	defer channel.Close()
	h.mu.Lock()
	h.run++
	h.mu.Unlock()
	command := exec.Command("sh", "-c", line)
	command.Dir = h.home
	command.Env = []string{"HOME=" + h.home, "PATH=" + os.Getenv("PATH")}
	command.Stdout, command.Stderr = channel, channel.Stderr()
	input, err := command.StdinPipe()
	if err != nil || command.Start() != nil {
		return
	}
	go func() {
		buffer := make([]byte, 32<<10)
		for {
			n, err := channel.Read(buffer)
			if n > 0 {
				if _, err := input.Write(buffer[:n]); err != nil {
					break
				}
			}
			if err != nil {
				break
			}
		}
		_ = input.Close()
	}()
	_ = command.Wait()
	code := uint32(command.ProcessState.ExitCode())
	_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Code uint32 }{code}))
}
