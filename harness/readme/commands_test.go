package readme

import (
	"fmt"
	"go/ast"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func makeTargets(t *testing.T, all documents) (problems []string) {
	targets := map[string]bool{}
	for _, rule := range regexp.MustCompile(`(?m)^([a-z][a-z0-9-]*):`).FindAllStringSubmatch(file(t, "Makefile"), -1) {
		targets[rule[1]] = true
	}
	for _, name := range all.names() {
		for _, call := range regexp.MustCompile(`\bmake ([a-z][a-z0-9-]*)`).FindAllStringSubmatch(code(all[name]), -1) {
			if !targets[call[1]] {
				problems = append(problems, name+": "+call[0]+": no such target")
			}
		}
	}
	return problems
}

func environment(t *testing.T, all documents) (problems []string) {
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
	for _, cells := range row.FindAllStringSubmatch(section(all[configuration], "Environment"), -1) {
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
	for _, document := range all.names() {
		for _, name := range regexp.MustCompile(`\b(?:REDIS|RATE_LIMIT|CIRCUIT_BREAKER|UPSTREAM)_[A-Z_]+\b`).FindAllString(all[document], -1) {
			if _, known := read[name]; !known && !strings.Contains(file(t, ".env.example"), "\n"+name+"=") {
				problems = append(problems, document+": "+name+": no dynamic file reads it, nor a Compose file")
			}
		}
	}
	return problems
}

func rights(t *testing.T, all documents) (problems []string) {
	lines := regexp.MustCompile(`(?m)^ACL SETUSER .*$`).FindAllString(all[operations], -1)
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

func answers(t *testing.T, all documents) (problems []string) {
	bodies := 0
	ast.Inspect(tree(t, "answer.go", 0), func(node ast.Node) bool {
		spec, ok := node.(*ast.ValueSpec)
		if !ok || !strings.HasSuffix(spec.Names[0].Name, "Body") {
			return true
		}
		bodies++
		body, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		require.NoError(t, err)
		if !strings.Contains(section(all[readme], "What clients see"), "`"+body+"`") {
			problems = append(problems, spec.Names[0].Name+": "+body+" is not in the table")
		}
		return true
	})
	require.Positive(t, bodies)
	return problems
}

// logTexts requires that the plugin writes each message that the page on operations shows.
func logTexts(t *testing.T, all documents) (problems []string) {
	var source strings.Builder
	for _, name := range filesOf(t, ".go") {
		if !strings.HasPrefix(name, "harness/") && !strings.HasSuffix(name, "_test.go") {
			source.WriteString(file(t, name))
		}
	}
	messages := regexp.MustCompile(`"message":("[^"]+")`).FindAllStringSubmatch(all[operations], -1)
	require.NotEmpty(t, messages)
	for _, message := range messages {
		written := strings.Contains(source.String(), message[1])
		for _, beginning := range []string{`"circuit `, `"refused: `} { // the code joins them with the rest
			if rest, ok := strings.CutPrefix(message[1], beginning); ok {
				written = strings.Contains(source.String(), beginning+`"+`) && strings.Contains(source.String(), `"`+rest)
			}
		}
		if !written {
			problems = append(problems, message[1]+": the plugin writes no such message")
		}
	}
	return problems
}

func sorted(words []string) []string {
	words = slices.Clone(words)
	sort.Strings(words)
	return words
}
