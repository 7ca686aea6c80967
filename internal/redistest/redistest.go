// Package redistest starts real Redis servers for tests, on loopback and on free ports.
package redistest

import (
	"fmt"
	"math/rand"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"
	"github.com/stretchr/testify/require"
)

// Server is one redis-server. It ends with its test.
type Server struct {
	t       testing.TB
	port    string
	args    []string
	dir     string
	process *exec.Cmd
	options []redis.DialOption

	sentinel string // its configuration file; empty: an ordinary server
}

// Start starts a server, with further arguments as on the command line.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	s := &Server{t: t, port: FreePort(t), args: args, dir: t.TempDir()}
	s.Run()
	t.Cleanup(s.Kill)
	return s
}

// nextPort counts through the ports that FreePort tries, from a random one, so that it does not return one of them twice: the first server may not
// listen on it yet.
var nextPort atomic.Int64

func init() { nextPort.Store(rand.Int63n(10000)) }

// FreePort returns a port of the loopback address that nobody listens on. It lies below those that systems give to outgoing
// connections, which might take it before the server does.
func FreePort(t testing.TB) string {
	t.Helper()
	for try := 0; try < 100; try++ {
		port := strconv.FormatInt(10000+nextPort.Add(1)%10000, 10)
		listener, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err == nil {
			listener.Close()
			return port
		}
	}
	require.FailNow(t, "no port is free on 127.0.0.1")
	return ""
}

// For returns the same server for another test, such as one run of a fuzz target.
func (s *Server) For(t testing.TB) *Server {
	other := *s
	other.t = t
	return &other
}

// Login makes Do authenticate as the given user, or with a password alone if the user is empty.
func (s *Server) Login(user, password string) {
	s.options = []redis.DialOption{redis.DialPassword(password)}
	if user != "" {
		s.options = append(s.options, redis.DialUsername(user))
	}
}

// InDatabase makes Do use the given database instead of 0.
func (s *Server) InDatabase(db int) {
	s.options = append(s.options, redis.DialDatabase(db))
}

// Run starts the process, also after Kill, and waits until it answers.
func (s *Server) Run() {
	s.t.Helper()
	path, err := program()
	require.NoError(s.t, err, "redis-server is missing; install the package redis-server")
	args := append([]string{"--port", s.port, "--bind", "127.0.0.1", "--save", "", "--dir", s.dir}, s.args...)
	if s.sentinel != "" {
		args = []string{s.sentinel, "--sentinel"}
	}
	s.process = exec.Command(path, args...)
	log, err := os.Create(filepath.Join(s.dir, "redis.log"))
	require.NoError(s.t, err)
	defer log.Close()
	s.process.Stdout = log
	s.process.Stderr = log
	endWithUs(s.process)
	require.NoError(s.t, s.process.Start())
	deadline := time.Now().Add(10 * time.Second)
	for !s.answers() {
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(filepath.Join(s.dir, "redis.log"))
			require.FailNow(s.t, "redis-server does not answer", string(text))
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// program returns the path of the server's program: REDIS_SERVER, which may be one of another version, or else the installed one.
func program() (string, error) {
	if path := os.Getenv("REDIS_SERVER"); path != "" {
		return exec.LookPath(path)
	}
	return exec.LookPath("redis-server")
}

// answers reports whether the server answers anything. A refusal to let us in, or not without TLS, is an answer.
func (s *Server) answers() bool {
	c, err := net.DialTimeout("tcp", s.Addr(), time.Second)
	if err != nil {
		return false
	}
	defer c.Close()
	if s.secure() {
		return true
	}
	c.SetDeadline(time.Now().Add(time.Second))
	fmt.Fprint(c, "PING\r\n")
	reply := make([]byte, 64)
	n, _ := c.Read(reply)
	return n > 0 && !strings.HasPrefix(string(reply[:n]), "-LOADING")
}

func (s *Server) secure() bool {
	for _, arg := range s.args {
		if arg == "--tls-port" {
			return true
		}
	}
	return false
}

// Port returns the server's port.
func (s *Server) Port() string { return s.port }

// Addr returns the server's host and port.
func (s *Server) Addr() string { return "127.0.0.1:" + s.port }

// Kill ends the process at once, as if it had crashed.
func (s *Server) Kill() {
	if s.process == nil {
		return
	}
	s.process.Process.Kill()
	s.process.Wait()
	s.process = nil
}

// Restart is Kill and Run: without --appendonly its data is lost.
func (s *Server) Restart() {
	s.t.Helper()
	s.Kill()
	s.Run()
}

// Pause stops the process without ending it: its connections stay, and nothing answers.
func (s *Server) Pause() { s.process.Process.Signal(syscall.SIGSTOP) }

// Resume ends a Pause.
func (s *Server) Resume() { s.process.Process.Signal(syscall.SIGCONT) }

// Do sends one command over a new connection and returns its reply.
func (s *Server) Do(command string, args ...interface{}) interface{} {
	s.t.Helper()
	c, err := redis.Dial("tcp", s.Addr(), s.options...)
	require.NoError(s.t, err)
	defer c.Close()
	reply, err := c.Do(command, args...)
	require.NoError(s.t, err, command)
	return reply
}

// Text is Do for a reply that is one string.
func (s *Server) Text(command string, args ...interface{}) string {
	s.t.Helper()
	text, err := redis.String(s.Do(command, args...), nil)
	require.NoError(s.t, err)
	return text
}

// Int is Do for a reply that is a number.
func (s *Server) Int(command string, args ...interface{}) int64 {
	s.t.Helper()
	n, err := redis.Int64(s.Do(command, args...), nil)
	require.NoError(s.t, err)
	return n
}

// Hash returns a hash.
func (s *Server) Hash(key string) map[string]string {
	s.t.Helper()
	fields, err := redis.StringMap(s.Do("HGETALL", key), nil)
	require.NoError(s.t, err)
	return fields
}
