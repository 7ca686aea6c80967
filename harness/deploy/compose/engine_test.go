// Package compose tests the Compose files, the Dockerfile and deploy.sh as they are shipped, on a real Docker Engine. No
// image is pulled: stand-ins are given to the build arguments and variables that the files offer.
package compose

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// project is the root of the repository.
var project = func() string {
	path, err := filepath.Abs("../../..")
	if err != nil {
		panic(err)
	}
	return path
}()

// socket of the engine that is used.
var socket string

func TestMain(m *testing.M) { os.Exit(runAll(m)) }

func runAll(m *testing.M) (code int) {
	scratch := filepath.Join(project, "dist", "docker")
	if err := os.MkdirAll(scratch, 0o755); err != nil {
		return fail(err)
	}
	scratch, err := os.MkdirTemp(scratch, "")
	if err != nil {
		return fail(err)
	}
	defer os.RemoveAll(scratch)
	if err := installPlugin(scratch); err != nil {
		return fail(err)
	}
	stop, err := findEngine(scratch)
	if err != nil {
		return fail(err)
	}
	defer func() {
		if err := stop(); err != nil {
			code = fail(err)
		}
	}()
	if err := makeStandIns(scratch); err != nil {
		return fail(err)
	}
	return m.Run()
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "compose:", err)
	return 1
}

// installPlugin makes Docker's client find our Compose, whatever is installed on the machine.
func installPlugin(scratch string) error {
	binary := filepath.Join(project, "dist", "bin", "docker-compose")
	if _, err := os.Stat(binary); err != nil {
		return fmt.Errorf("%s is missing; run: make compose", binary)
	}
	plugins := filepath.Join(scratch, "config", "cli-plugins")
	if err := os.MkdirAll(plugins, 0o755); err != nil {
		return err
	}
	if err := os.Symlink(binary, filepath.Join(plugins, "docker-compose")); err != nil {
		return err
	}
	return os.Setenv("DOCKER_CONFIG", filepath.Join(scratch, "config"))
}

// findEngine uses the engine that answers, or starts one.
func findEngine(scratch string) (stop func() error, err error) {
	if answers() {
		socket = "/var/run/docker.sock"
		if path, found := strings.CutPrefix(os.Getenv("DOCKER_HOST"), "unix://"); found {
			socket = path
		}
		return removeImages, nil
	}
	if os.Getuid() != 0 {
		return nil, errors.New("no Docker Engine answers, and only root can start one")
	}
	if _, err := exec.LookPath("dockerd"); err != nil {
		return nil, errors.New("no Docker Engine answers, and dockerd is missing; install it: .ci/install docker.io")
	}
	return startEngine(scratch)
}

func answers() bool {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return exec.CommandContext(ctx, "docker", "info").Run() == nil
}

func startEngine(scratch string) (stop func() error, err error) {
	// A socket's path may not be long.
	short, err := os.MkdirTemp("", "docker")
	if err != nil {
		return nil, err
	}
	socket = filepath.Join(short, "docker.sock")
	logFile := filepath.Join(scratch, "dockerd.log")
	log, err := os.Create(logFile)
	if err != nil {
		return nil, err
	}
	unmount, err := mountDisk(scratch)
	if err != nil {
		return nil, err
	}
	command := exec.Command("dockerd", "--host", "unix://"+socket, "--data-root", disk,
		"--exec-root", filepath.Join(short, "exec"), "--pidfile", filepath.Join(short, "pid"))
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	restore := rememberNetwork()
	if err := command.Start(); err != nil {
		return nil, errors.Join(err, unmount())
	}
	ended := make(chan struct{})
	go func() {
		command.Wait()
		close(ended)
	}()
	stop = func() error {
		command.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(60 * time.Second):
			command.Process.Kill()
			<-ended
		}
		log.Close()
		return errors.Join(restore(), processesWith(short), unmount(), os.RemoveAll(short))
	}
	if err := os.Setenv("DOCKER_HOST", "unix://"+socket); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		select {
		case <-ended:
			return nil, errors.Join(errors.New("dockerd has ended at its start"), tail(logFile))
		default:
		}
		if answers() {
			return stop, nil
		}
	}
	return nil, errors.Join(errors.New("dockerd does not answer after a minute"), tail(logFile), stop())
}

// disk is where the engine that the tests started keeps its data: a file system that a test can fill. It is empty if another engine is used.
var disk string

// mountDisk mounts a file system of 24 GiB on a file that holds only what is written.
func mountDisk(scratch string) (unmount func() error, err error) {
	file, folder := filepath.Join(scratch, "disk"), filepath.Join(scratch, "data")
	for _, words := range [][]string{
		{"truncate", "--size", "24G", file},
		{"mkfs.ext4", "-q", "-m", "0", file},
		{"mkdir", folder},
		{"mount", "-o", "loop,discard", file, folder},
	} {
		if output, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%s: %w: %s", strings.Join(words, " "), err, output)
		}
	}
	disk = folder
	return func() error {
		output, err := exec.Command("umount", folder).CombinedOutput()
		if err != nil {
			return fmt.Errorf("umount: %w: %s", err, output)
		}
		return nil
	}, nil
}

// fillDisk leaves this many bytes of the disk free until the test ends.
func fillDisk(t *testing.T, left int64) {
	t.Helper()
	require.NotEmpty(t, disk)
	var found syscall.Statfs_t
	require.NoError(t, syscall.Statfs(disk, &found))
	free := int64(found.Bavail) * found.Bsize
	require.Greater(t, free, left)
	file, err := os.CreateTemp(disk, "filler")
	require.NoError(t, err)
	t.Cleanup(func() { os.Remove(file.Name()) })
	defer file.Close()
	require.NoError(t, syscall.Fallocate(int(file.Fd()), 0, 0, free-left))
}

// processesWith tells which processes have the folder on their command line: what an engine starts has its own.
func processesWith(folder string) error {
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range lines {
		line, _ := os.ReadFile(path) // it may have ended
		if strings.Contains(string(line), folder) {
			err = errors.Join(err, fmt.Errorf("still runs: %s", strings.ReplaceAll(string(line), "\x00", " ")))
		}
	}
	return err
}

func tail(path string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSpace(string(content)), "\n")
	return errors.New(strings.Join(lines[max(0, len(lines)-20):], "\n"))
}

// command is one that is run in the root of the project, with the environment that the test asks for.
type command struct {
	env   []string
	limit time.Duration
}

// run returns what the command printed, and its exit code.
func (c command) run(t *testing.T, name string, args ...string) (output string, code int) {
	t.Helper()
	limit := c.limit
	if limit == 0 {
		limit = 10 * time.Minute
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = project
	cmd.Env = append(environment(), c.env...)
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	require.NoError(t, ctx.Err(), "%s %s: not done after %s\n%s", name, strings.Join(args, " "), limit, out)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		require.NoError(t, err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// must is run where the command has to succeed.
func (c command) must(t *testing.T, name string, args ...string) string {
	t.Helper()
	output, code := c.run(t, name, args...)
	require.Zero(t, code, "%s %s:\n%s", name, strings.Join(args, " "), output)
	return output
}

// environment is this process's own, less all that the files read: a test says itself what it sets.
func environment() []string {
	ours := map[string]bool{"COMPOSE_PROJECT_NAME": true, "COMPOSE_FILE": true, "COMPOSE_PROFILES": true, "ENV_FILE": true}
	for name := range readEnvFile(filepath.Join(project, ".env.example")) {
		ours[name] = true
	}
	env := []string{"COMPOSE_DISABLE_ENV_FILE=1"}
	for _, line := range os.Environ() {
		if name, _, _ := strings.Cut(line, "="); !ours[name] {
			env = append(env, line)
		}
	}
	return env
}
