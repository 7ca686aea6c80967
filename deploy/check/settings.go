package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sort"
	"strconv"
	"strings"

	"github.com/mitchellh/mapstructure"
	"github.com/resilient-gateway/resilience"
	"github.com/resilient-gateway/resilience/internal/logging"
	"github.com/traefik/paerser/file"
	"gopkg.in/yaml.v3"
)

// folder returns the folder of dynamic files: that of the static file, that of the command line, or the image's.
func (o options) folder() (string, error) {
	content, err := os.ReadFile(o.static)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	var static any
	if err := yaml.Unmarshal(content, &static); err != nil {
		return "", fmt.Errorf("%s cannot be read: %w", o.static, err)
	}
	if named, _ := child(child(child(static, "providers"), "file"), "directory").(string); named != "" && o.dynamic == "" {
		return named, nil
	}
	if o.dynamic != "" {
		return o.dynamic, nil
	}
	const ofImage = "/etc/traefik/dynamic"
	if _, err := os.Stat(ofImage); err != nil {
		return "", nil
	}
	return ofImage, nil
}

// checkFolder checks the dynamic files of a folder: what they give to the plugin, and the URLs of their services.
func checkFolder(folder string) []string {
	files, err := readFolder(folder)
	if err != nil {
		return []string{err.Error()}
	}
	var problems []string
	for _, f := range files {
		content, err := f.render(os.Getenv)
		if err != nil {
			problems = append(problems, f.broken(err))
			continue
		}
		checked := &checkedFile{dynamicFile: f, from: f.origins()}
		checked.middlewares(child(child(content, "http"), "middlewares"))
		checked.services(child(child(content, "http"), "services"))
		problems = append(problems, checked.problems...)
	}
	return problems
}

// checkedFile is a dynamic file with what is wrong with it.
type checkedFile struct {
	dynamicFile
	from     map[string][]string // origins
	problems []string
}

// middleware is the part of Traefik's own type that matters here. Its decoder treats maps of these types as it does Traefik's.
type middleware struct {
	Plugin map[string]settings
}

type settings map[string]any

func (c *checkedFile) middlewares(node any) {
	middlewares, _ := node.(map[string]any)
	for _, name := range sortedKeys(middlewares) {
		if child(child(middlewares[name], "plugin"), "resilience") == nil {
			continue
		}
		if err := try(name, middlewares[name]); err != nil {
			for _, problem := range split(err.Error()) {
				c.add(".http.middlewares."+name+".plugin.resilience.", name, problem)
			}
		}
	}
}

// try gives the middleware's settings to the plugin as Traefik does.
func try(name string, node any) error {
	content, err := yaml.Marshal(map[string]any{"http": map[string]any{"middlewares": map[string]any{
		name: map[string]any{"plugin": child(node, "plugin")},
	}}})
	if err != nil {
		return err
	}
	var decoded struct {
		HTTP *struct{ Middlewares map[string]*middleware }
	}
	if err := file.DecodeContent(string(content), ".yml", &decoded); err != nil {
		return err
	}
	config := resilience.CreateConfig()
	decoder, err := mapstructure.NewDecoder(&mapstructure.DecoderConfig{
		DecodeHook:       mapstructure.StringToSliceHookFunc(","),
		WeaklyTypedInput: true,
		Result:           config,
	})
	if err != nil {
		return err
	}
	if err := decoder.Decode(map[string]any(decoded.HTTP.Middlewares[name].Plugin["resilience"])); err != nil {
		return err
	}
	if null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0); err == nil {
		defer null.Close()
		defer logging.SetOutput(logging.SetOutput(null))
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	_, err = resilience.New(ctx, http.NotFoundHandler(), config, name+"@file")
	return err
}

// split returns the problems that the plugin has put into one error: "2 problems: (1) ... (2) ...".
func split(text string) []string {
	_, rest, several := strings.Cut(text, " problems: (1) ")
	if !several {
		return []string{text}
	}
	var problems []string
	for number := 2; ; number++ {
		problem, others, more := strings.Cut(rest, " ("+strconv.Itoa(number)+") ")
		problems = append(problems, problem)
		if !more {
			return problems
		}
		rest = others
	}
}

// add adds a problem of the plugin, "key: what is wrong", by the variables that the key's value comes from.
func (c *checkedFile) add(path, name, problem string) {
	key, what, _ := strings.Cut(problem, ": ")
	variables := c.variablesOf(path + key)
	if len(variables) == 0 {
		c.problems = append(c.problems, fmt.Sprintf("%s, middleware %s: %s", c.name, name, problem))
		return
	}
	for _, variable := range variables {
		if isSeconds(variable) && !decimal.MatchString(os.Getenv(variable)) && os.Getenv(variable) != "" {
			return // told already, and without the unit that the file adds
		}
	}
	c.problems = append(c.problems, fmt.Sprintf("%s: %s", strings.Join(variables, ", "), what))
}

// variablesOf returns the variables of the value with that path, or of all values below it.
func (c *checkedFile) variablesOf(path string) (variables []string) {
	for value, names := range c.from {
		if strings.EqualFold(value, path) || strings.HasPrefix(value, path+".") {
			variables = append(variables, names...)
		}
	}
	sort.Strings(variables)
	return unique(variables)
}

func (c *checkedFile) services(node any) {
	services, _ := node.(map[string]any)
	for _, name := range sortedKeys(services) {
		servers, _ := child(child(services[name], "loadBalancer"), "servers").([]any)
		for i, server := range servers {
			text, _ := child(server, "url").(string)
			problem := urlProblem(text)
			if problem == "" {
				continue
			}
			who := fmt.Sprintf("%s, service %s", c.name, name)
			if variables := c.variablesOf(fmt.Sprintf(".http.services.%s.loadBalancer.servers.%d.url", name, i)); len(variables) > 0 {
				who = strings.Join(variables, ", ")
			}
			c.problems = append(c.problems, who+": "+problem)
		}
	}
}

func sortedKeys(tree map[string]any) []string {
	names := make([]string, 0, len(tree))
	for name := range tree {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}
