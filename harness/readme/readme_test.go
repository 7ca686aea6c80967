// Package readme keeps the README true: what it says of the configuration, the environment, the commands, the answers and
// the rights in Redis is compared with the files that make it so.
package readme

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"

	"github.com/resilient-gateway/resilience"
	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

const module = "github.com/resilient-gateway/resilience"

// mutation is a change to the README that a check must see.
type mutation struct {
	old, new string
	problem  string // a part of what the check then says
}

var checks = []struct {
	name      string
	problems  func(t *testing.T, readme string) []string
	mutations []mutation
}{
	{"the table has the keys of the configuration, and their defaults", configuration, []mutation{
		{"| `redis.tls.ca` |", "| `redis.tls.cacert` |", "redis.tls.ca: not in the table"},
		{"| `redis.tls.ca` |", "| `redis.tls.cacert` |", "redis.tls.cacert: no such key"},
		{"| `rateLimit.capacity` | number | 100 |", "| `rateLimit.capacity` | number | 200 |", `rateLimit.capacity: default "200", not "100"`},
		{"| `redis.address` | text | – |", "| `redis.address` | text | none |", `redis.address: default "none", not "–"`},
		{"| `health` | block |", "| `health` | text |", `health: type "text", not "block"`},
		{"excludedIPs` | list |", "excludedIPs` | text |", `excludedIPs: type "text", not "list"`},
		{"| `health.path` |", "| `health` |", "health: twice"},
	}},
	{"each YAML block parses", parses, []mutation{
		{"      rateLimit:\n", "      rateLimit: {\n", "yaml: "},
	}},
	{"each make target exists", makeTargets, []mutation{
		{"`make fuzz`", "`make fuss`", "make fuss: no such target"},
		{"$ make test\n", "$ make tests\n", "make tests: no such target"},
	}},
	{"the variables are those of the dynamic files, and their defaults", environment, []mutation{
		{"| `REDIS_DB` |", "| `REDIS_DATABASE` |", "REDIS_DB: not in the table"},
		{"| `REDIS_DB` |", "| `REDIS_DATABASE` |", "REDIS_DATABASE: no dynamic file reads it"},
		{"| `REDIS_PORT` | 6379 |", "| `REDIS_PORT` | 6380 |", `REDIS_PORT: default "6380", not "6379"`},
		{"`RATE_LIMIT_CAPACITY=20 make run`", "`RATE_LIMIT_SIZE=20 make run`", "RATE_LIMIT_SIZE: no dynamic file reads it"},
	}},
	{"the rights of the Redis user are those of the tests", rights, []mutation{
		{" +hdel", "", "not [+evalsha"},
		{" +pttl", " +pttl +flushall", "+flushall"},
		{"~resilience:*", "~*", "~resilience:*"},
		{"ACL SETUSER", "SETUSER", "0 lines"},
	}},
	{"the examples are configurations that the plugin takes", examples, []mutation{
		{"            refillRate: 10\n", "            refilRate: 10\n", "rateLimit.refilRate: no such key"},
		{"plugin.resilience.rateLimit.refillRate:", "plugin.resilience.rateLimit.refilRate:", "rateLimit.refilRate: no such key"},
		{"        refillRate: 10\n        refillPeriod: \"1s\"\n      circuitBreaker", "        refilRate: 10\n      circuitBreaker", "rateLimit.refilRate: no such key"},
		{"    ca: /run/secrets/redis/ca.pem\n", "    cacert: /run/secrets/redis/ca.pem\n", "redis.tls.cacert: no such key"},
		{"resetTimeout: \"30s\"", "resetTimeout: 30", `write "30s"`},
		{"kind: Middleware", "kind: TLSOption", "Kubernetes: no example"},
		{"--experimental.abortOnPluginFailure=true", "--ping", "Labels: no abortOnPluginFailure"},
		{"moduleName: " + module, "moduleName: example.com/resilience", "Files: no moduleName"},
	}},
	{"the answers are those of the code", answers, []mutation{
		{"please try again later.\"}` |\n| the circuit", "try again later.\"}` |\n| the circuit", "limitedBody"},
	}},
	{"each link leads somewhere", links, []mutation{
		{"(#when-redis-is-away)", "(#when-redis-is-gone)", "#when-redis-is-gone"},
		{"(traefik/traefik.yml)", "(traefik/static.yml)", "traefik/static.yml"},
	}},
}

func TestReadme(t *testing.T) {
	readme := file(t, "README.md")
	for _, check := range checks {
		t.Run(check.name, func(t *testing.T) {
			require.Empty(t, check.problems(t, readme))
		})
	}
}

// TestReadme_isSeen shows each check what it must refuse.
func TestReadme_isSeen(t *testing.T) {
	readme := file(t, "README.md")
	for _, check := range checks {
		for _, m := range check.mutations {
			t.Run(check.name+": "+m.new, func(t *testing.T) {
				require.Contains(t, readme, m.old)
				changed := strings.ReplaceAll(readme, m.old, m.new)
				require.Contains(t, strings.Join(check.problems(t, changed), "\n"), m.problem)
			})
		}
	}
}

// configuration

// key is one of the configuration's, as config.go has it.
type key struct {
	kind      string // block, list, or empty for a single value
	byDefault string // – where the comment names none
}

func configuration(t *testing.T, readme string) (problems []string) {
	keys := configKeys(t)
	seen := map[string]bool{}
	row := regexp.MustCompile("(?m)^\\| `([A-Za-z0-9.]+)` \\| ([^|]+) \\| ([^|]+) \\| [^|]+ \\|$")
	for _, cells := range row.FindAllStringSubmatch(section(readme, "Configuration"), -1) {
		path, kind, byDefault := cells[1], cells[2], strings.ReplaceAll(cells[3], "`", "")
		want, known := keys[path]
		switch {
		case !known:
			problems = append(problems, path+": no such key")
			continue
		case seen[path]:
			problems = append(problems, path+": twice")
		}
		seen[path] = true
		single := []string{"text", "number", "duration", "true/false"}
		if want.kind != kind && (want.kind != "" || !slices.Contains(single, kind)) {
			problems = append(problems, fmt.Sprintf("%s: type %q, not %q", path, kind, want.kind))
		}
		if !strings.EqualFold(byDefault, want.byDefault) {
			problems = append(problems, fmt.Sprintf("%s: default %q, not %q", path, byDefault, want.byDefault))
		}
	}
	for path := range keys {
		if !seen[path] {
			problems = append(problems, path+": not in the table")
		}
	}
	return problems
}

// configKeys returns the keys of the structs in config.go, as redis.tls.ca, from their json tags, and the default that each
// comment names.
func configKeys(t *testing.T) map[string]key {
	structs := map[string]*ast.StructType{}
	ast.Inspect(tree(t, "config.go", parser.ParseComments), func(node ast.Node) bool {
		if spec, ok := node.(*ast.TypeSpec); ok {
			structs[spec.Name.Name] = spec.Type.(*ast.StructType)
		}
		return true
	})
	keys := map[string]key{}
	var walk func(path, name string)
	walk = func(path, name string) {
		require.Contains(t, structs, name)
		for _, field := range structs[name].Fields.List {
			tag, err := strconv.Unquote(field.Tag.Value)
			require.NoError(t, err)
			name, _, _ := strings.Cut(reflect.StructTag(tag).Get("json"), ",")
			if name == "-" {
				continue
			}
			k := key{byDefault: defaultIn(field.Doc.Text())}
			switch kind := field.Type.(type) {
			case *ast.StarExpr:
				k.kind = "block"
				walk(path+name+".", kind.X.(*ast.Ident).Name)
			case *ast.ArrayType:
				k.kind = "list"
			}
			keys[path+name] = k
		}
	}
	walk("", "Config")
	require.Contains(t, keys, "rateLimit.sourceCriterion.ipStrategy.depth")
	return keys
}

var defaultInComment = regexp.MustCompile(`Default: (.+?)\.(?: |$)`)

func defaultIn(comment string) string {
	found := defaultInComment.FindStringSubmatch(strings.Join(strings.Fields(comment), " "))
	if found == nil {
		return "–"
	}
	return found[1]
}

// YAML

func parses(_ *testing.T, readme string) (problems []string) {
	_, err := documents(readme)
	if err != nil {
		problems = append(problems, err.Error())
	}
	return problems
}

// documents returns those of the YAML blocks. There is none where one does not parse.
func documents(readme string) ([]any, error) {
	var all []any
	for _, block := range fences(readme) {
		if block.language != "yaml" {
			continue
		}
		decoder := yaml.NewDecoder(strings.NewReader(block.text))
		for {
			var document any
			err := decoder.Decode(&document)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, fmt.Errorf("%w in:\n%s", err, block.text)
			}
			all = append(all, document)
		}
	}
	if len(all) == 0 {
		return nil, errors.New("yaml: no blocks")
	}
	return all, nil
}

// make

func makeTargets(t *testing.T, readme string) (problems []string) {
	targets := map[string]bool{}
	for _, rule := range regexp.MustCompile(`(?m)^([a-z][a-z0-9-]*):`).FindAllStringSubmatch(file(t, "Makefile"), -1) {
		targets[rule[1]] = true
	}
	named := regexp.MustCompile(`\bmake ([a-z][a-z0-9-]*)`).FindAllStringSubmatch(code(readme), -1)
	for _, call := range named {
		if !targets[call[1]] {
			problems = append(problems, call[0]+": no such target")
		}
	}
	if len(named) == 0 {
		problems = append(problems, "no make")
	}
	return problems
}

// environment

func environment(t *testing.T, readme string) (problems []string) {
	read := map[string]string{} // the default of each variable
	files, err := filepath.Glob("../../dynamic/*.yml")
	require.NoError(t, err)
	for _, name := range files {
		text := file(t, "dynamic/"+filepath.Base(name))
		for _, found := range regexp.MustCompile(`env "(\w+)"(?: \| default "([^"]*)")?`).FindAllStringSubmatch(text, -1) {
			read[found[1]] = found[2]
		}
		for _, found := range regexp.MustCompile(`passwordEnv: (\w+)`).FindAllStringSubmatch(text, -1) {
			read[found[1]] = ""
		}
	}
	require.NotEmpty(t, read)

	told := map[string]bool{}
	row := regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\| ([^|]+) \\|")
	for _, cells := range row.FindAllStringSubmatch(section(readme, "Environment"), -1) {
		told[cells[1]] = true
		byDefault, known := read[cells[1]]
		if byDefault == "" {
			byDefault = "–"
		}
		if known && cells[2] != byDefault {
			problems = append(problems, fmt.Sprintf("%s: default %q, not %q", cells[1], cells[2], byDefault))
		}
	}
	for name := range read {
		if !told[name] {
			problems = append(problems, name+": not in the table")
		}
	}
	for _, name := range regexp.MustCompile(`\b(?:REDIS|RATE_LIMIT|CIRCUIT_BREAKER|UPSTREAM)_[A-Z_]+\b`).FindAllString(readme, -1) {
		if _, known := read[name]; !known && !strings.Contains(file(t, ".env.example"), "\n"+name+"=") {
			problems = append(problems, name+": no dynamic file reads it, nor a Compose file")
		}
	}
	return problems
}

// Redis

func rights(t *testing.T, readme string) (problems []string) {
	lines := regexp.MustCompile(`(?m)^ACL SETUSER .*$`).FindAllString(readme, -1)
	if len(lines) != 1 {
		return []string{fmt.Sprintf("%d lines with ACL SETUSER, not 1", len(lines))}
	}
	var told []string
	for _, word := range strings.Fields(lines[0]) {
		if strings.HasPrefix(word, "+") {
			told = append(told, word)
		}
	}
	if tested := testedRights(t); !slices.Equal(sorted(told), sorted(tested)) {
		problems = append(problems, fmt.Sprintf("the rights are %v, not %v", told, tested))
	}
	if keys := "~" + configKeys(t)["redis.keyPrefix"].byDefault + ":*"; !strings.Contains(lines[0], " "+keys+" ") {
		problems = append(problems, "the user does not have the keys "+keys)
	}
	return problems
}

// testedRights are those that the end-to-end tests give their user.
func testedRights(t *testing.T) (rights []string) {
	ast.Inspect(tree(t, "harness/e2e/redis_test.go", 0), func(node ast.Node) bool {
		spec, ok := node.(*ast.ValueSpec)
		if !ok || spec.Names[0].Name != "commands" {
			return true
		}
		for _, element := range spec.Values[0].(*ast.CompositeLit).Elts {
			right, err := strconv.Unquote(element.(*ast.BasicLit).Value)
			require.NoError(t, err)
			rights = append(rights, right)
		}
		return false
	})
	require.NotEmpty(t, rights)
	return rights
}

// examples

// example is a configuration of the plugin.
type example struct {
	form   string // section that it belongs to; empty: a part of one
	config map[string]any
}

func examples(t *testing.T, readme string) (problems []string) {
	for _, form := range []string{"Files", "Labels", "Kubernetes"} {
		text := section(readme, form)
		if !regexp.MustCompile(`abortOnPluginFailure[:=] ?true`).MatchString(text) {
			problems = append(problems, form+": no abortOnPluginFailure")
		}
		if !regexp.MustCompile(`moduleName[:=] ?` + regexp.QuoteMeta(module) + `\n`).MatchString(text) {
			problems = append(problems, form+": no moduleName")
		}
	}
	all, err := documents(readme)
	if err != nil {
		return append(problems, err.Error())
	}
	keys := configKeys(t)
	seen := map[string]bool{}
	for _, document := range all {
		for _, e := range examplesIn(document, keys) {
			seen[e.form] = true
			problems = append(problems, unknownKeys(e.config, "", keys)...)
			if err := take(t, e.config, keys); err != nil {
				problems = append(problems, fmt.Sprintf("%s: %s", e.form, err))
			}
		}
	}
	for _, form := range []string{"Files", "Labels", "Kubernetes"} {
		if !seen[form] {
			problems = append(problems, form+": no example")
		}
	}
	return problems
}

func examplesIn(document any, keys map[string]key) (all []example) {
	top, _ := document.(map[string]any)
	for name := range top {
		if _, known := keys[name]; known {
			return []example{{config: top}}
		}
	}
	middlewares, _ := at(top, "http", "middlewares").(map[string]any)
	for name := range middlewares {
		if config, ok := at(middlewares, name, "plugin", "resilience").(map[string]any); ok {
			all = append(all, example{"Files", config})
		}
	}
	if config, ok := at(top, "spec", "plugin", "resilience").(map[string]any); ok && top["kind"] == "Middleware" {
		all = append(all, example{"Kubernetes", config})
	}
	services, _ := at(top, "services").(map[string]any)
	for name := range services {
		labels, _ := at(services, name, "labels").(map[string]any)
		if config := fromLabels(labels); len(config) > 0 {
			all = append(all, example{"Labels", config})
		}
	}
	return all
}

func at(node any, path ...string) any {
	for _, name := range path {
		m, _ := node.(map[string]any)
		node = m[name]
	}
	return node
}

var pluginLabel = regexp.MustCompile(`^traefik\.http\.middlewares\.[^.]+\.plugin\.resilience\.(.+)$`)

func fromLabels(labels map[string]any) map[string]any {
	config := map[string]any{}
	for label, value := range labels {
		found := pluginLabel.FindStringSubmatch(label)
		if found == nil {
			continue
		}
		path := strings.Split(found[1], ".")
		here := config
		for _, name := range path[:len(path)-1] {
			next, ok := here[name].(map[string]any)
			if !ok {
				next = map[string]any{}
				here[name] = next
			}
			here = next
		}
		here[path[len(path)-1]] = value
	}
	return config
}

func unknownKeys(config map[string]any, path string, keys map[string]key) (problems []string) {
	for name, value := range config {
		if _, known := keys[path+name]; !known {
			problems = append(problems, path+name+": no such key")
		}
		if block, ok := value.(map[string]any); ok {
			problems = append(problems, unknownKeys(block, path+name+".", keys)...)
		}
	}
	return problems
}

// take gives the configuration to the plugin, each value as the text that files and labels make of it. The files that it
// names are not there, and are left out.
func take(t *testing.T, config map[string]any, keys map[string]key) error {
	content, err := json.Marshal(texts(config, "", keys))
	require.NoError(t, err)
	read := resilience.CreateConfig()
	if err := json.Unmarshal(content, read); err != nil {
		return err
	}
	if redis := read.Redis; redis != nil {
		if redis.PasswordFile != "" {
			redis.PasswordFile = filepath.Join(t.TempDir(), "password")
			require.NoError(t, os.WriteFile(redis.PasswordFile, []byte("s3cret\n"), 0o600))
		}
		if redis.TLS != nil {
			redis.TLS.CA, redis.TLS.Cert, redis.TLS.Key = "", "", ""
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	_, err = resilience.New(ctx, http.NotFoundHandler(), read, "gateway@file")
	return err
}

func texts(value any, path string, keys map[string]key) any {
	switch value := value.(type) {
	case map[string]any:
		all := map[string]any{}
		for name, element := range value {
			all[name] = texts(element, strings.TrimPrefix(path+"."+name, "."), keys)
		}
		return all
	case []any:
		all := []any{}
		for _, element := range value {
			all = append(all, texts(element, "", keys))
		}
		return all
	case string:
		if keys[path].kind == "list" {
			return strings.Split(value, ",")
		}
	}
	return fmt.Sprint(value)
}

// answers

func answers(t *testing.T, readme string) (problems []string) {
	bodies := 0
	ast.Inspect(tree(t, "answer.go", 0), func(node ast.Node) bool {
		spec, ok := node.(*ast.ValueSpec)
		if !ok || !strings.HasSuffix(spec.Names[0].Name, "Body") {
			return true
		}
		bodies++
		body, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		require.NoError(t, err)
		if !strings.Contains(section(readme, "The answers"), "`"+body+"`") {
			problems = append(problems, spec.Names[0].Name+": "+body+" is not in the table")
		}
		return true
	})
	require.Positive(t, bodies)
	return problems
}

// links

func links(_ *testing.T, readme string) (problems []string) {
	anchors := map[string]bool{}
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(withoutFences(readme), -1) {
		anchors["#"+strings.ReplaceAll(strings.ToLower(heading[1]), " ", "-")] = true
	}
	for _, link := range regexp.MustCompile(`\]\(([^)]+)\)`).FindAllStringSubmatch(withoutFences(readme), -1) {
		target := link[1]
		if strings.HasPrefix(target, "#") {
			if !anchors[target] {
				problems = append(problems, target+": no such heading")
			}
			continue
		}
		if _, err := os.Stat(filepath.Join("../..", target)); err != nil {
			problems = append(problems, err.Error())
		}
	}
	return problems
}

// files

func file(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("../..", name))
	require.NoError(t, err)
	return string(bytes.ReplaceAll(content, []byte("\r\n"), []byte("\n")))
}

func tree(t *testing.T, name string, mode parser.Mode) *ast.File {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), name, file(t, name), mode)
	require.NoError(t, err)
	return parsed
}

// section returns the text below a heading, up to the next heading of any level.
func section(readme, heading string) string {
	begin := regexp.MustCompile(`(?m)^#+ ` + regexp.QuoteMeta(heading) + `$`).FindStringIndex(readme)
	if begin == nil {
		return ""
	}
	text := readme[begin[1]:]
	if end := regexp.MustCompile(`(?m)^##+ `).FindStringIndex(text); end != nil {
		text = text[:end[0]]
	}
	return text
}

type fence struct {
	language, text string
}

var fenced = regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$")

func fences(readme string) (all []fence) {
	for _, found := range fenced.FindAllStringSubmatch(readme, -1) {
		all = append(all, fence{found[1], found[2]})
	}
	return all
}

func withoutFences(readme string) string {
	return fenced.ReplaceAllString(readme, "")
}

// code returns what is set as code: the blocks, and the words between backticks.
func code(readme string) string {
	var all []string
	for _, block := range fences(readme) {
		all = append(all, block.text)
	}
	all = append(all, regexp.MustCompile("`[^`\n]+`").FindAllString(withoutFences(readme), -1)...)
	return strings.Join(all, "\n")
}

func sorted(words []string) []string {
	words = slices.Clone(words)
	sort.Strings(words)
	return words
}
