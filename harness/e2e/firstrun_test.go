package e2e

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/harness/gateway"
	"github.com/resilient-gateway/resilience/harness/walkthrough"
	"github.com/stretchr/testify/require"
)

// TestFirstRun types what a newcomer types, in a copy of the project in which nothing is built.
func TestFirstRun(t *testing.T) {
	n := newNewcomer(t)

	// The times come first, before other tests run at the same time.
	const withRelease, warm = 30 * time.Second, 10 * time.Second
	took := n.timeToFirstAnswer()
	t.Logf("from make run to the first 200, with the release at hand: %.1f s", took.Seconds())
	require.Contains(t, n.last.output.String(), ": the release, "+n.releases)
	require.Less(t, took, withRelease, n.last.output.String())
	took = n.timeToFirstAnswer()
	t.Logf("from make run to the first 200, with all of it built: %.1f s", took.Seconds())
	require.Contains(t, n.last.output.String(), ": the release, "+n.releases, "the cached binary has kept its origin")
	require.Less(t, took, warm, n.last.output.String())
	t.Parallel()

	t.Run("README's Start as printed", n.followStart)
	t.Run("two at the same time, by the hint", n.runTwo)
	t.Run("a wrong setting ends it before anything is built", n.refuse)
	t.Run("what does not answer is named", n.withoutServices)
	t.Run("the path of UPSTREAM_URL comes first", n.withBasePath)
}

// newcomer has a copy of the project, and ports that nobody else uses.
type newcomer struct {
	t         *testing.T
	root      string
	releases  string // URL of a site that stands for that of Traefik's releases
	port, api string
	last      *command // that was started
}

func newNewcomer(t *testing.T) *newcomer {
	n := &newcomer{t: t, root: t.TempDir(), releases: serveRelease(t), port: portOf(freeAddress(t)), api: portOf(freeAddress(t))}
	entries, err := os.ReadDir(root(t))
	require.NoError(t, err)
	for _, entry := range entries {
		if name := entry.Name(); name != "dist" && name != ".git" {
			copyAll(t, filepath.Join(root(t), name), filepath.Join(n.root, name))
		}
	}
	writePatient(t, filepath.Join(n.root, "dynamic")) // as all other tests do
	return n
}

func copyAll(t *testing.T, from, to string) {
	t.Helper()
	out, err := exec.Command("cp", "-R", from, to).CombinedOutput()
	require.NoError(t, err, string(out))
}

func portOf(address string) string { return address[strings.LastIndex(address, ":")+1:] }

// serveRelease returns the URL of a site with the release for this machine: an archive of the binary that the tests use.
func serveRelease(t *testing.T) string {
	folder := t.TempDir()
	modules, err := os.ReadFile(filepath.Join(root(t), "harness", "go.mod"))
	require.NoError(t, err)
	version := regexp.MustCompile(`traefik/traefik/v3 (v\S+)`).FindSubmatch(modules)
	require.NotNil(t, version)
	archive := fmt.Sprintf("traefik_%s_%s_%s.tar.gz", version[1], runtime.GOOS, runtime.GOARCH)
	sum := pack(t, filepath.Join(root(t), "dist", "bin", "traefik"), filepath.Join(folder, archive))
	sums := fmt.Sprintf("%x  %s\n", sum, archive)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch path.Base(r.URL.Path) {
		case archive:
			http.ServeFile(w, r, filepath.Join(folder, archive))
		case fmt.Sprintf("traefik_%s_checksums.txt", version[1]):
			io.WriteString(w, sums)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// pack writes an archive of the binary, and returns its SHA-256.
func pack(t *testing.T, binary, archive string) []byte {
	t.Helper()
	from, err := os.Open(binary)
	require.NoError(t, err)
	defer from.Close()
	about, err := from.Stat()
	require.NoError(t, err)
	to, err := os.Create(archive)
	require.NoError(t, err)
	defer to.Close()
	hash := sha256.New()
	compressed, err := gzip.NewWriterLevel(io.MultiWriter(to, hash), gzip.BestSpeed)
	require.NoError(t, err)
	entries := tar.NewWriter(compressed)
	require.NoError(t, entries.WriteHeader(&tar.Header{Name: "traefik", Typeflag: tar.TypeReg, Mode: 0o755, Size: about.Size()}))
	_, err = io.Copy(entries, from)
	require.NoError(t, err)
	require.NoError(t, entries.Close())
	require.NoError(t, compressed.Close())
	return hash.Sum(nil)
}

// command is one that keeps running.
type command struct {
	t       *testing.T
	output  *gateway.Log
	process *gateway.Process
}

// start types a command in the root of the copy, with these variables set.
func (n *newcomer) start(t *testing.T, line string, env ...string) *command {
	t.Helper()
	shell := exec.Command("bash", "-c", line)
	shell.Dir = n.root
	shell.Env = append(slices.DeleteFunc(os.Environ(), func(variable string) bool { // what a make around this test has set
		name, _, _ := strings.Cut(variable, "=")
		return slices.Contains([]string{"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "TRAEFIK", "GOWORK"}, name)
	}), "TRAEFIK_RELEASES="+n.releases)
	shell.Env = append(shell.Env, env...)
	c := &command{t: t, output: &gateway.Log{}}
	process, err := gateway.Start(line, shell, c.output)
	require.NoError(t, err)
	c.process = process
	n.last = c
	t.Cleanup(c.interrupt)
	return c
}

// ports are the variables that keep a gateway off the ports of the machine's user.
func (n *newcomer) ports() []string { return []string{"PORT=" + n.port, "API_PORT=" + n.api} }

// greets waits for the end of the greeting, and returns what was printed until then.
func (c *command) greets() string {
	c.t.Helper()
	const end = "\nCtrl-C ends it.\n"
	deadline := time.After(2 * time.Minute)
	for {
		if text, _, greeted := strings.Cut(c.output.String(), end); greeted {
			return text + end
		}
		select {
		case <-c.process.Ended():
			require.Fail(c.t, "it has ended", c.output.String())
		case <-deadline:
			require.Fail(c.t, "it does not greet", c.output.String())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// fails waits for the end, and returns what was printed.
func (c *command) fails() string {
	c.t.Helper()
	select {
	case <-c.process.Ended():
	case <-time.After(2 * time.Minute):
		require.Fail(c.t, "it does not end", c.output.String())
	}
	require.Contains(c.t, c.output.String(), "Error 1", "what make says of the exit code")
	return c.output.String()
}

// interrupt does what Ctrl-C does in a terminal: the signal goes to all of the group.
func (c *command) interrupt() {
	select {
	case <-c.process.Ended():
		return
	default:
	}
	client.CloseIdleConnections() // Traefik waits for some of them
	syscall.Kill(-c.process.PID(), syscall.SIGINT)
	select {
	case <-c.process.Ended():
	case <-time.After(30 * time.Second):
		c.process.Kill()
		require.Fail(c.t, "Ctrl-C does not end it", c.output.String())
	}
}

// timeToFirstAnswer measures the time from make run to the first answer of the service.
func (n *newcomer) timeToFirstAnswer() time.Duration {
	n.t.Helper()
	begun := time.Now()
	c := n.start(n.t, "make run", n.ports()...)
	defer c.interrupt()
	for at := "http://127.0.0.1:" + n.port + "/proxy/ok"; statusOf(at) != http.StatusOK; time.Sleep(20 * time.Millisecond) {
		select {
		case <-c.process.Ended():
			require.Fail(n.t, "it has ended", c.output.String())
		default:
		}
		require.Less(n.t, time.Since(begun), 2*time.Minute, c.output.String())
	}
	took := time.Since(begun)
	c.greets()
	return took
}

// statusOf returns the status of an answer, or 0 if there is none.
func statusOf(url string) int {
	response, err := client.Get(url)
	if err != nil {
		return 0
	}
	response.Body.Close()
	return response.StatusCode
}

var gatewayLine = regexp.MustCompile(`(?m)^  gateway    http://127\.0\.0\.1:(\d+)/proxy/\.\.\.$`)

// followStart types the commands of README's Start. Those with make run stay until the next of them.
func (n *newcomer) followStart(t *testing.T) {
	steps, err := walkthrough.Section(filepath.Join(n.root, "README.md"), "## Start")
	require.NoError(t, err)
	var runs []string
	var running *command
	published := map[string]string{}
	for _, step := range steps {
		if strings.HasSuffix(step.Command, "make run") {
			if running != nil {
				running.interrupt()
			}
			runs = append(runs, step.Command)
			running = n.start(t, step.Command, n.ports()...)
			greeting := running.greets()
			for i, found := range gatewayLine.FindAllStringSubmatch(greeting, -1) {
				published[strconv.Itoa(5000+i)] = found[1]
			}
			step.Want = walkthrough.Ports(step.Want, published)
			require.NoError(t, step.Match(greeting))
			continue
		}
		begun := time.Now()
		got, err := walkthrough.Run(walkthrough.Ports(step.Command, published))
		require.NoError(t, err)
		if strings.HasSuffix(step.Command, "| sort | uniq -c") {
			requireBurst(t, step, got, time.Since(begun))
			continue
		}
		require.NoError(t, step.Match(got))
	}
	require.Equal(t, []string{"make run", "GATEWAYS=2 make run"}, runs)
	require.Len(t, published, 2)
	running.interrupt()
	require.Contains(t, running.output.String(), "\nstopping\n")
	for _, port := range published {
		require.Zero(t, statusOf("http://127.0.0.1:"+port+"/health"), "nothing is left")
	}
}

// requireBurst compares the statuses that a burst had with those in the README. More may pass on a slower machine: the bucket is
// refilled meanwhile.
func requireBurst(t *testing.T, step walkthrough.Step, got string, took time.Duration) {
	t.Helper()
	const capacity, rate = 100, 10
	printed, had := countsOf(step.Want), countsOf(got)
	require.Len(t, printed, 2, step.Want)
	require.Len(t, had, 2, got)
	require.Equal(t, printed[200]+printed[429], had[200]+had[429], got)
	require.GreaterOrEqual(t, had[200], capacity)
	require.LessOrEqual(t, had[200], capacity+int(rate*took.Seconds()))
	require.InDelta(t, capacity+rate/2, printed[200], rate/2, "of a burst that takes a second at most")
}

// countsOf reads what uniq -c counts.
func countsOf(text string) map[int]int {
	counts := map[int]int{}
	for _, found := range regexp.MustCompile(`(?m)^ *(\d+) (\d{3})$`).FindAllStringSubmatch(text, -1) {
		number, _ := strconv.Atoi(found[1])
		status, _ := strconv.Atoi(found[2])
		counts[status] = number
	}
	return counts
}

// runTwo starts a second gateway beside a first, by what the error of the second says.
func (n *newcomer) runTwo(t *testing.T) {
	first := n.start(t, "make run", n.ports()...)
	first.greets()
	refused := n.start(t, "make run", n.ports()...).fails()
	require.Contains(t, refused, "PORT: 127.0.0.1:"+n.port+" is taken by another program")
	require.Contains(t, refused, "API_PORT: 127.0.0.1:"+n.api+" is taken by another program")
	hint := regexp.MustCompile(`; write: (PORT=(\d+) API_PORT=\d+ make run)\n`).FindStringSubmatch(refused)
	require.NotNil(t, hint, refused)
	second := n.start(t, hint[1])
	require.Contains(t, second.greets(), "http://127.0.0.1:"+hint[2]+"/proxy/...")
	for _, port := range []string{n.port, hint[2]} {
		require.Equal(t, http.StatusOK, statusOf("http://127.0.0.1:"+port+"/proxy/ok"))
	}
	first.interrupt()
	require.Equal(t, http.StatusOK, statusOf("http://127.0.0.1:"+hint[2]+"/proxy/ok"), "the second has all parts to itself")
	second.interrupt()
}

func (n *newcomer) refuse(t *testing.T) {
	said := n.start(t, "make run", append(n.ports(), "UPSTREAM_URL=shop:3000", "RATE_LIMIT_CAPACITY=1,000",
		"CIRCUIT_BREAKER_RESET_TIMEOUT_SECONDS=30s")...).fails()
	for _, line := range []string{
		"make run: 3 problems\n",
		`UPSTREAM_URL: "shop:3000" is not a URL with a scheme and a host; write one such as http://localhost:3000`,
		`RATE_LIMIT_CAPACITY: "1,000" is not a whole number`,
		`CIRCUIT_BREAKER_RESET_TIMEOUT_SECONDS: "30s" is not a number of seconds, without a unit; write 30`,
	} {
		require.Contains(t, said, line)
	}
	require.NotContains(t, said, "30ss")
	require.NotContains(t, said, "Traefik v", "which is asked for its version before it is taken")
}

// withoutServices names a Redis and a service that nobody has started. The gateway runs nevertheless.
func (n *newcomer) withoutServices(t *testing.T) {
	redis, service := freeAddress(t), freeAddress(t)
	c := n.start(t, "make run", append(n.ports(), "REDIS_HOST=127.0.0.1", "REDIS_PORT="+portOf(redis), "UPSTREAM_URL=http://"+service)...)
	greeting := c.greets()
	require.Contains(t, greeting, "  redis      "+redis+" (REDIS_HOST: it does not answer: ")
	require.Contains(t, greeting, "  upstream   http://"+service+" (UPSTREAM_URL: it does not answer: ")
	require.NotContains(t, greeting, "/proxy/fail", "a path of the dummy service")
	require.Equal(t, http.StatusBadGateway, statusOf("http://127.0.0.1:"+n.port+"/proxy/ok"))
	c.interrupt()
}

func (n *newcomer) withBasePath(t *testing.T) {
	up := startUpstream(t)
	for _, base := range []string{"/status", "/status/"} {
		c := n.start(t, "make run", append(n.ports(), "UPSTREAM_URL="+up.url()+base)...)
		require.Contains(t, c.greets(), "  upstream   "+up.url()+base+"\n")
		require.Equal(t, http.StatusTeapot, statusOf("http://127.0.0.1:"+n.port+"/proxy/418"))
		c.interrupt()
	}
}
