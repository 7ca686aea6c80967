package readme

import (
	"fmt"
	"go/ast"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// namedTests requires that the tests that the documents name exist.
func namedTests(t *testing.T, all documents) (problems []string) {
	declared := map[string]bool{}
	for _, name := range filesOf(t, "_test.go") {
		for _, function := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)`).FindAllStringSubmatch(file(t, name), -1) {
			declared[function[1]] = true
		}
	}
	isTest := regexp.MustCompile(`^(?:Test|Fuzz)[A-Z]\w*$`)
	for _, name := range all.names() {
		for _, span := range spans(all[name]) {
			if isTest.MatchString(span) && !declared[span] {
				problems = append(problems, fmt.Sprintf("%s: %s: no such test", name, span))
			}
		}
	}
	return problems
}

// namedPaths requires that the files and folders that the documents name exist.
func namedPaths(_ *testing.T, all documents) (problems []string) {
	isPath := regexp.MustCompile(`^(?:\.ci|\.github|bundle|deploy|docs|dynamic|examples|harness|identity|internal|k8s|traefik|upstream)/[\w./-]*$`)
	for _, name := range all.names() {
		for _, span := range spans(all[name]) {
			if !isPath.MatchString(span) {
				continue
			}
			if _, err := os.Stat(filepath.Join(root, span)); err != nil {
				problems = append(problems, fmt.Sprintf("%s: %s: no such file", name, span))
			}
		}
	}
	return problems
}

// rules requires that the rules of the interpreter are numbered without a gap, that each check in harness/dialect belongs to one, and
// that documents and code cite only those that exist.
func rules(t *testing.T, all documents) (problems []string) {
	numbered := map[string]bool{}
	for i, row := range regexp.MustCompile(`(?m)^\| <a id="(r\d+)" href="#(r\d+)">(R\d+)</a> \|`).FindAllStringSubmatch(all[interpreter], -1) {
		number := fmt.Sprint("R", i+1)
		if row[3] != number || row[1] != strings.ToLower(number) || row[2] != strings.ToLower(number) {
			problems = append(problems, fmt.Sprintf("%s: the number is not %d", row[3], i+1))
		}
		numbered[row[3]] = true
	}
	require.NotEmpty(t, numbered)
	for _, check := range dialectChecks(t) {
		if !regexp.MustCompile(`[|;] ` + regexp.QuoteMeta(check) + `(?:;| \|)`).MatchString(all[interpreter]) {
			problems = append(problems, check+": no rule names this check of harness/dialect")
		}
	}
	cited := regexp.MustCompile(`\bR\d+\b`)
	for _, name := range all.names() {
		problems = append(problems, unknownRules(name, cited.FindAllString(withoutFences(all[name]), -1), numbered)...)
	}
	inComment := regexp.MustCompile(`(?m)//.*$`)
	for _, name := range filesOf(t, ".go") {
		for _, comment := range inComment.FindAllString(file(t, name), -1) {
			problems = append(problems, unknownRules(name, cited.FindAllString(comment, -1), numbered)...)
		}
	}
	return problems
}

func unknownRules(where string, cited []string, numbered map[string]bool) (problems []string) {
	for _, rule := range cited {
		if !numbered[rule] {
			problems = append(problems, fmt.Sprintf("%s: %s: no such rule", where, rule))
		}
	}
	return problems
}

// dialectChecks returns the names of the constructs that harness/dialect refuses, from the table that shows them to it.
func dialectChecks(t *testing.T) (names []string) {
	for _, declaration := range tree(t, "harness/dialect/dialect_test.go", 0).Decls {
		function, ok := declaration.(*ast.FuncDecl)
		if !ok || function.Name.Name != "TestDialect_isSeen" {
			continue
		}
		ast.Inspect(function, func(node ast.Node) bool {
			row, ok := node.(*ast.CompositeLit)
			if !ok || row.Type != nil || len(row.Elts) == 0 {
				return true
			}
			name, err := strconv.Unquote(row.Elts[0].(*ast.BasicLit).Value)
			require.NoError(t, err)
			names = append(names, name)
			return false
		})
	}
	require.NotEmpty(t, names)
	return names
}

// fileMap compares the file map with the files of the root, ratelimit and breaker.
func fileMap(t *testing.T, all documents) (problems []string) {
	mapped := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z/_]+\\.go)` \\| [^|]+ \\|$").FindAllStringSubmatch(section(all[architecture], "Files"), -1) {
		if mapped[row[1]] {
			problems = append(problems, row[1]+": twice")
		}
		mapped[row[1]] = true
	}
	require.NotEmpty(t, mapped)
	for _, folder := range []string{".", "ratelimit", "breaker"} {
		files, err := filepath.Glob(filepath.Join(root, folder, "*.go"))
		require.NoError(t, err)
		for _, found := range files {
			name := path.Join(folder, filepath.Base(found))
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			if !mapped[name] {
				problems = append(problems, name+": not in the file map")
			}
			delete(mapped, name)
		}
	}
	for name := range mapped {
		problems = append(problems, name+": no such file")
	}
	return problems
}
