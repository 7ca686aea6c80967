package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"text/template"
	"unicode"

	"github.com/BurntSushi/toml"
	"github.com/Masterminds/sprig/v3"
	"gopkg.in/yaml.v3"
)

// dynamicFile is a dynamic file, which is a template.
type dynamicFile struct {
	name string // without its folder
	text string
}

// readFolder returns the dynamic files of a folder and those below it, as Traefik's file provider finds them.
func readFolder(folder string) (files []dynamicFile, err error) {
	err = filepath.WalkDir(folder, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		switch strings.ToLower(filepath.Ext(path)) {
		case ".yml", ".yaml", ".toml":
			content, err := os.ReadFile(path)
			files = append(files, dynamicFile{entry.Name(), string(content)})
			return err
		}
		return nil
	})
	return files, err
}

// functions are those that Traefik offers to dynamic files, with env replaced.
func functions(env func(string) string) template.FuncMap {
	functions := sprig.TxtFuncMap()
	functions["env"] = env
	functions["split"] = strings.Split
	functions["normalize"] = func(name string) string {
		return strings.Join(strings.FieldsFunc(name, func(c rune) bool { return !unicode.IsLetter(c) && !unicode.IsNumber(c) }), "-")
	}
	return functions
}

// render returns what the file says with the given environment.
func (f dynamicFile) render(env func(string) string) (map[string]any, error) {
	parsed, err := template.New(f.name).Funcs(functions(env)).Parse(f.text)
	if err != nil {
		return nil, err
	}
	var rendered bytes.Buffer
	if err := parsed.Execute(&rendered, false); err != nil {
		return nil, err
	}
	content := map[string]any{}
	if strings.EqualFold(filepath.Ext(f.name), ".toml") {
		_, err = toml.Decode(rendered.String(), &content)
	} else {
		err = yaml.Unmarshal(rendered.Bytes(), &content)
	}
	return content, err
}

var named = regexp.MustCompile(`\benv "(\w+)"`)

// variables returns the variables that the file reads.
func (f dynamicFile) variables() (names []string) {
	for _, match := range named.FindAllStringSubmatch(f.text, -1) {
		names = append(names, match[1])
	}
	sort.Strings(names)
	return unique(names)
}

// origins returns the variables that each value of the file comes from: those that change it, or of them those that are set. Values are
// named by their path.
func (f dynamicFile) origins() map[string][]string {
	const mark = "a value to be found again"
	origins := map[string][]string{}
	for _, name := range f.variables() {
		content, err := f.render(func(asked string) string {
			if asked == name {
				return mark
			}
			return os.Getenv(asked)
		})
		if err != nil {
			continue
		}
		each(content, "", func(path, value string) {
			if strings.Contains(value, mark) {
				origins[path] = append(origins[path], name)
			}
		})
	}
	for path, names := range origins {
		if set := thoseSet(names); len(set) > 0 {
			origins[path] = set
		}
	}
	return origins
}

func thoseSet(names []string) (set []string) {
	for _, name := range names {
		if os.Getenv(name) != "" {
			set = append(set, name)
		}
	}
	return set
}

// each calls visit for each value in a tree.
func each(node any, path string, visit func(path, value string)) {
	switch node := node.(type) {
	case map[string]any:
		for name, child := range node {
			each(child, path+"."+name, visit)
		}
	case []any:
		for i, child := range node {
			each(child, fmt.Sprintf("%s.%d", path, i), visit)
		}
	default:
		visit(path, fmt.Sprint(node))
	}
}

// broken says why a file cannot be read: the variables without whose values it could be, or else the file itself.
func (f dynamicFile) broken(cause error) string {
	for _, name := range f.variables() {
		if os.Getenv(name) == "" {
			continue
		}
		_, err := f.render(func(asked string) string {
			if asked == name {
				return ""
			}
			return os.Getenv(asked)
		})
		if err == nil {
			return fmt.Sprintf("%s: its value cannot be written into %s; leave out quotes, braces and line breaks", name, f.name)
		}
	}
	return errors.Join(errors.New(f.name+" cannot be read"), cause).Error()
}

// child returns what is below a node by that name, which Traefik compares without regard to upper and lower case.
func child(node any, name string) any {
	tree, _ := node.(map[string]any)
	for key, value := range tree {
		if strings.EqualFold(key, name) {
			return value
		}
	}
	return nil
}
