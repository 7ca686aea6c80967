package catalogue

import (
	"context"
	"errors"
	"fmt"
	"image/png"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/mitchellh/mapstructure"
	"github.com/stretchr/testify/require"
	"github.com/traefik/yaegi/interp"
	"github.com/traefik/yaegi/stdlib"
	"golang.org/x/mod/modfile"
	"gopkg.in/yaml.v3"
)

// manifest is .traefik.yml, as far as the catalogue reads it.
type manifest struct {
	DisplayName string         `yaml:"displayName"`
	Type        string         `yaml:"type"`
	Runtime     string         `yaml:"runtime"`
	Import      string         `yaml:"import"`
	BasePkg     string         `yaml:"basePkg"`
	Summary     string         `yaml:"summary"`
	IconPath    string         `yaml:"iconPath"`
	UseUnsafe   bool           `yaml:"useUnsafe"`
	TestData    map[string]any `yaml:"testData"`
}

// listing is what the catalogue publishes of a plugin.
type listing struct {
	manifest
	Readme   string
	Snippets map[string]string // by form: yaml, toml, k8s
}

// analyse checks the tree of a tag as the catalogue's analyser does, with two rules more: the icon exists, and nothing needs unsafe.
func analyse(goPath string) (found listing, err error) {
	tree := filepath.Join(goPath, "src", module)
	readme, err := os.ReadFile(filepath.Join(tree, "README.md"))
	if err != nil {
		return found, fmt.Errorf("no README: %w", err)
	}
	found.Readme = string(readme)
	if found.manifest, err = readManifest(tree); err != nil {
		return found, err
	}
	if err := checkModule(tree, found.manifest); err != nil {
		return found, err
	}
	if err := interpret(goPath, found.manifest); err != nil {
		return found, err
	}
	found.Snippets, err = snippets(found.TestData)
	return found, err
}

func readManifest(tree string) (m manifest, err error) {
	content, err := os.ReadFile(filepath.Join(tree, ".traefik.yml"))
	if err != nil {
		return m, fmt.Errorf("no manifest: %w", err)
	}
	if err := yaml.Unmarshal(content, &m); err != nil {
		return m, fmt.Errorf("the manifest cannot be read: %w", err)
	}
	switch {
	case m.Type != "middleware":
		return m, fmt.Errorf("type %q", m.Type)
	case m.Runtime != "" && m.Runtime != "yaegi":
		return m, fmt.Errorf("runtime %q", m.Runtime)
	case m.UseUnsafe:
		return m, errors.New("it needs unsafe")
	case m.Import == "":
		return m, errors.New("no import")
	case m.DisplayName == "":
		return m, errors.New("no displayName")
	case m.Summary == "":
		return m, errors.New("no summary")
	case len(m.TestData) == 0:
		return m, errors.New("no testData")
	}
	return m, checkIcon(filepath.Join(tree, m.IconPath))
}

func checkIcon(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("no icon: %w", err)
	}
	defer file.Close()
	size, err := png.DecodeConfig(file)
	if err == nil && size.Width != size.Height {
		return fmt.Errorf("the icon is not square: %d x %d", size.Width, size.Height)
	}
	return err
}

// checkModule holds go.mod and the manifest against the name of the repository.
func checkModule(tree string, m manifest) error {
	content, err := os.ReadFile(filepath.Join(tree, "go.mod"))
	if err != nil {
		return fmt.Errorf("no go.mod: %w", err)
	}
	mod, err := modfile.Parse("go.mod", content, nil)
	if err != nil {
		return err
	}
	name := mod.Module.Mod.Path
	for _, require := range mod.Require {
		if forbidden := regexp.MustCompile(`^github\.com/(traefik|containous)/(traefik|yaegi|maesh|mesh)\b`); forbidden.MatchString(require.Mod.Path) {
			return fmt.Errorf("it requires %s", require.Mod.Path)
		}
	}
	switch {
	case !strings.HasPrefix(name, "github.com/"+repository):
		return fmt.Errorf("the module %s is not named as the repository", name)
	case !strings.HasPrefix(m.Import, "github.com/"+repository), !strings.HasPrefix(m.Import, name):
		return fmt.Errorf("the import %s does not belong to the module %s", m.Import, name)
	}
	return nil
}

// interpret loads the plugin from the tree alone and makes a middleware of testData, without Redis.
func interpret(goPath string, m manifest) error {
	limit, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	i := interp.New(interp.Options{GoPath: goPath})
	if err := i.Use(stdlib.Symbols); err != nil {
		return err
	}
	if _, err := i.EvalWithContext(limit, fmt.Sprintf("import %q", m.Import)); err != nil {
		return fmt.Errorf("the plugin does not load: %w", err)
	}
	name := m.BasePkg
	if name == "" {
		name = strings.ReplaceAll(path.Base(m.Import), "-", "_")
	}
	config, err := i.EvalWithContext(limit, name+".CreateConfig()")
	if err != nil {
		return fmt.Errorf("CreateConfig: %w", err)
	}
	decoder, err := mapstructure.NewDecoder(&mapstructure.DecoderConfig{
		DecodeHook: mapstructure.StringToSliceHookFunc(","), WeaklyTypedInput: true, Result: config.Interface(),
	})
	if err != nil {
		return err
	}
	if err := decoder.Decode(m.TestData); err != nil {
		return fmt.Errorf("testData: %w", err)
	}
	constructor, err := i.EvalWithContext(limit, name+".New")
	if err != nil {
		return fmt.Errorf("New: %w", err)
	}
	return construct(limit, constructor, config)
}

// construct calls New and requires that it returns a handler within the time.
func construct(limit context.Context, constructor, config reflect.Value) error {
	if want := 4; constructor.Type().NumIn() != want || constructor.Type().NumOut() != 2 {
		return fmt.Errorf("New is a %s", constructor.Type())
	}
	type outcome struct {
		handler any
		err     any
	}
	done := make(chan outcome, 1)
	go func() {
		next := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
		results := constructor.Call([]reflect.Value{
			reflect.ValueOf(limit), reflect.ValueOf(next), config, reflect.ValueOf("test"),
		})
		done <- outcome{results[0].Interface(), results[1].Interface()}
	}()
	select {
	case result := <-done:
		if result.err != nil {
			return fmt.Errorf("New: %v", result.err)
		}
		if _, ok := result.handler.(http.Handler); !ok {
			return fmt.Errorf("New returned a %T", result.handler)
		}
		return nil
	case <-limit.Done():
		return fmt.Errorf("New: %w", limit.Err())
	}
}

// snippets are the examples on the plugin's page: testData as a middleware, in Traefik's three forms.
func snippets(testData map[string]any) (map[string]string, error) {
	plugin := map[string]any{"plugin": map[string]any{path.Base(repository): testData}}
	name := "my-" + path.Base(repository)
	dynamic := map[string]any{"http": map[string]any{"middlewares": map[string]any{name: plugin}}}
	asYAML, err := yaml.Marshal(dynamic)
	if err != nil {
		return nil, err
	}
	var asTOML strings.Builder
	if err := toml.NewEncoder(&asTOML).Encode(dynamic); err != nil {
		return nil, err
	}
	asObject, err := yaml.Marshal(map[string]any{
		"apiVersion": "traefik.io/v1alpha1", "kind": "Middleware",
		"metadata": map[string]any{"name": name, "namespace": "my-namespace"}, "spec": plugin,
	})
	return map[string]string{"yaml": string(asYAML), "toml": asTOML.String(), "k8s": string(asObject)}, err
}

// withoutSecrets takes from the environment what the analyser takes from it.
func withoutSecrets(t *testing.T) {
	t.Helper()
	for _, variable := range os.Environ() {
		name, value, _ := strings.Cut(variable, "=")
		if regexp.MustCompile(`(?i)token|password|username|_url|_host|_port`).MatchString(name) {
			t.Setenv(name, value) // restored afterwards
			require.NoError(t, os.Unsetenv(name))
		}
	}
}

func TestAnalyser_acceptsTheTag(t *testing.T) {
	withoutSecrets(t)
	t.Chdir(t.TempDir())
	found, err := analyse(unpack(t, tagged(t)))
	require.NoError(t, err)
	require.Equal(t, "Resilience", found.DisplayName)
	require.Contains(t, found.Readme, "](https://github.com/resilient-gateway/resilience/blob/main/docs/")
	require.NotContains(t, found.Readme, "](docs/", "a link that the catalogue's page cannot follow")
	require.Contains(t, found.Snippets["k8s"], "passwordEnv: REDIS_PASSWORD")
	require.NotContains(t, fmt.Sprint(found.TestData), "password:", "an example to copy holds no password")
}

// Each rule sees what breaks it.
func TestAnalyser_refusesWhatBreaksARule(t *testing.T) {
	withoutSecrets(t)
	t.Chdir(t.TempDir())
	archive := tagged(t)
	replace := func(file, old, new string) func(*testing.T, string) {
		return func(t *testing.T, tree string) {
			before := read(t, tree, file)
			require.Contains(t, before, old)
			write(t, strings.Replace(before, old, new, 1), tree, file)
		}
	}
	remove := func(name string) func(*testing.T, string) {
		return func(t *testing.T, tree string) { require.NoError(t, os.RemoveAll(filepath.Join(tree, name))) }
	}
	const ofManifest = ".traefik.yml"
	for _, row := range []struct {
		name    string
		damage  func(t *testing.T, tree string)
		problem string
	}{
		{"no README", remove("README.md"), "no README"},
		{"no manifest", remove(ofManifest), "no manifest"},
		{"no go.mod", remove("go.mod"), "no go.mod"},
		{"no icon", remove(".assets"), "no icon"},
		{"no name", replace(ofManifest, "displayName: Resilience", ""), "no displayName"},
		{"no summary", replace(ofManifest, "summary:", "compatibility:"), "no summary"},
		{"another type", replace(ofManifest, "type: middleware", "type: filter"), `type "filter"`},
		{"another repository", replace(ofManifest, "import: "+module, "import: github.com/another/resilience"), "does not belong to the module"},
		{"another module", replace("go.mod", "module "+module, "module github.com/another/resilience"), "is not named as the repository"},
		{"a forbidden requirement", replace("go.mod", "go 1.21", "go 1.21\n\nrequire github.com/traefik/yaegi v0.16.1"), "it requires github.com/traefik/yaegi"},
		{"no dependencies", remove("vendor"), `unable to find source related to: "github.com/gomodule/redigo/redis"`},
		{"redigo as published", replace("vendor/github.com/gomodule/redigo/redis/conn.go",
			"do.dialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {\n\t\t\treturn do.dialer.DialContext(ctx, network, addr)\n\t\t}",
			"do.dialContext = do.dialer.DialContext"), "the plugin does not load"},
		{"testData that is refused", replace(ofManifest, "capacity: 100", "capacity: many"), `New: rateLimit.capacity: "many" is not a whole number`},
	} {
		t.Run(row.name, func(t *testing.T) {
			goPath := unpack(t, archive)
			row.damage(t, filepath.Join(goPath, "src", module))
			_, err := analyse(goPath)
			require.ErrorContains(t, err, row.problem)
		})
	}
}
