package gateway

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// Traefik says how to start one.
type Traefik struct {
	Root    string   // of the project
	Dir     string   // for the static file that is written
	WorkDir string   // that holds plugins-local; default: dist
	Web     string   // host and port of the public entry point
	API     string   // host and port of the internal one
	Dynamic string   // folder of the dynamic files; default: ours
	Env     []string // on top of this process's own
	Log     io.Writer
	// Change, where it is not nil, changes the static configuration before it is written.
	Change func(static map[string]any)
}

// Start starts Traefik from our static file, with its addresses and folders changed to those given, and waits until it
// answers.
func (t *Traefik) Start() (*Process, error) {
	static, err := t.write()
	if err != nil {
		return nil, err
	}
	binary, err := filepath.Abs(filepath.Join(t.Root, "dist", "bin", "traefik"))
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(binary); err != nil {
		return nil, fmt.Errorf("%s is missing; run: make traefik", binary)
	}
	command := exec.Command(binary, "--configFile="+static)
	command.Dir = t.WorkDir
	if command.Dir == "" {
		command.Dir = filepath.Join(t.Root, "dist")
	}
	command.Env = append(environment(), t.Env...)
	process, err := Start("Traefik", command, t.Log)
	if err != nil {
		return nil, err
	}
	return process, process.await(answers("http://"+t.API+"/ping"), 60*time.Second)
}

// environment returns this process's own without what Traefik would take for its configuration.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(variable string) bool { return strings.HasPrefix(variable, "TRAEFIK_RELEASES=") })
}

// Serves waits until the path answers with 200 on the public entry point, and tells what Traefik says is wrong with the
// middleware, if it says so.
func (t *Traefik) Serves(path, middleware string) error {
	ready := answers("http://" + t.Web + path)
	for deadline := time.Now().Add(20 * time.Second); !ready(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("the gateway does not answer %s", path)
		}
	}
	response, err := http.Get("http://" + t.API + "/api/http/middlewares/" + middleware)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var shown struct{ Error []string }
	if err := json.NewDecoder(response.Body).Decode(&shown); err != nil {
		return err
	}
	if len(shown.Error) > 0 {
		return fmt.Errorf("the middleware's configuration is wrong: %s", strings.Join(shown.Error, "; "))
	}
	return nil
}

// write writes the static file and returns its path.
func (t *Traefik) write() (string, error) {
	content, err := os.ReadFile(filepath.Join(t.Root, "traefik", "traefik.yml"))
	if err != nil {
		return "", err
	}
	var static map[string]any
	if err := yaml.Unmarshal(content, &static); err != nil {
		return "", fmt.Errorf("traefik/traefik.yml: %w", err)
	}
	dynamic := t.Dynamic
	if dynamic == "" {
		dynamic = filepath.Join(t.Root, "dynamic")
	}
	Set(static, t.Web, "entryPoints", "web", "address")
	Set(static, t.API, "entryPoints", "traefik", "address")
	Set(static, dynamic, "providers", "file", "directory")
	if t.Change != nil {
		t.Change(static)
	}
	content, err = yaml.Marshal(static)
	if err != nil {
		return "", err
	}
	path := filepath.Join(t.Dir, "traefik.yml")
	return path, os.WriteFile(path, content, 0o644)
}

// Set sets a value deep in a configuration, making the maps on the way to it.
func Set(config map[string]any, value any, path ...string) {
	for _, key := range path[:len(path)-1] {
		next, ok := config[key].(map[string]any)
		if !ok {
			next = map[string]any{}
			config[key] = next
		}
		config = next
	}
	config[path[len(path)-1]] = value
}
