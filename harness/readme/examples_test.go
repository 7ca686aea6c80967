package readme

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/resilient-gateway/resilience"
	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

func parses(_ *testing.T, all documents) (problems []string) {
	for _, name := range all.names() {
		if _, err := yamlIn(all[name]); err != nil {
			problems = append(problems, name+": "+err.Error())
		}
	}
	return problems
}

// yamlIn returns the documents of the YAML blocks of a text. It returns none if one of them does not parse.
func yamlIn(text string) ([]any, error) {
	var all []any
	for _, block := range fences(text) {
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
	return all, nil
}

// example is a configuration of the plugin.
type example struct {
	form   string // section that it belongs to; empty: a part of one
	config map[string]any
}

// forms are Traefik's three, by the heading of their section in the two documents that have all of them.
var forms = map[string]map[string]string{
	configuration: {"Files": "Files", "Labels": "Labels", "Kubernetes": "Kubernetes"},
	readme:        {"File": "Files", "Labels": "Labels", "Kubernetes": "Kubernetes"},
}

var (
	abortsOnFailure = regexp.MustCompile(`abortOnPluginFailure[:=] ?true`)
	namesTheModule  = regexp.MustCompile(`moduleName[:=] ?` + regexp.QuoteMeta(module) + `\n`)
)

func examples(t *testing.T, all documents) (problems []string) {
	for _, form := range []string{"Files", "Labels", "Kubernetes"} {
		problems = append(problems, missing(form, section(all[configuration], form))...)
	}
	problems = append(problems, missing(readme, all[readme])...)
	keys := configKeys(t)
	for _, name := range all.names() {
		parsed, err := yamlIn(all[name])
		if err != nil {
			problems = append(problems, err.Error())
			continue
		}
		seen := map[string]bool{}
		for _, document := range parsed {
			for _, e := range examplesIn(document, keys) {
				seen[e.form] = true
				problems = append(problems, unknownKeys(e.config, "", keys)...)
				if err := take(t, e.config, keys); err != nil {
					problems = append(problems, fmt.Sprintf("%s: %s: %s", name, e.form, err))
				}
			}
		}
		for heading, form := range forms[name] {
			if !seen[form] || section(all[name], heading) == "" {
				problems = append(problems, fmt.Sprintf("%s: %s: no example", name, heading))
			}
		}
	}
	return problems
}

// missing returns what a text about the static configuration lacks.
func missing(where, text string) (problems []string) {
	if !abortsOnFailure.MatchString(text) {
		problems = append(problems, where+": no abortOnPluginFailure")
	}
	if !namesTheModule.MatchString(text) {
		problems = append(problems, where+": no moduleName")
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
		here := below(path, name, keys)
		if _, known := keys[here]; !known && !keys[path].ofBlocks {
			problems = append(problems, here+": no such key")
		}
		if block, ok := value.(map[string]any); ok && (keys[here].kind != "Map" || keys[here].ofBlocks) {
			problems = append(problems, unknownKeys(block, here, keys)...)
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
			all[name] = texts(element, below(path, name, keys), keys)
		}
		return all
	case []any:
		all := []any{}
		for _, element := range value {
			all = append(all, texts(element, "", keys))
		}
		return all
	case string:
		if keys[path].kind == "List" {
			return strings.Split(value, ",")
		}
	}
	return fmt.Sprint(value)
}
