package dialect

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"sort"
	"testing"

	"github.com/stretchr/testify/require"
)

// sleepers are the functions in the tests of the plugin that may call time.Sleep, each with what it stands for. Any other test advances a
// clock, or waits for a condition.
var sleepers = map[string]string{
	"askWhile": "a client that asks again and again",
	"breaker/TestPermitRequest_unusedPermitGivesItsPlaceBack": "no call is made",
	"breaker/TestRefresh_isSharedByConcurrentRequests":        "a request waits",
	"breaker/Run":                "a way to Redis, in virtual time",
	"breaker/ask":                "a service, in virtual time",
	"breaker/simulate":           "virtual time",
	"internal/recorder/Write":    "a slow client",
	"internal/store/Read":        "a process that does not run",
	"internal/store/Write":       "a process that does not run",
	"internal/store/newHostName": "a slow network",
	"internal/store/repeatFor":   "connections age by the machine's clock",
	"internal/store/TestIdle_aCallThatMustCountOnceIsNotRepeated":                 "a call is sent",
	"internal/store/TestLate_anAnswerWithinTheTimeoutDoesNotMakeRedisUnavailable": "a slow Redis",
	"internal/store/TestRenew_aClosedStoreMakesNoConnections":                     "no connection is made",
	"ratelimit/awaitIdle": "it polls",
	"ratelimit/send":      "a client that was refused",
}

func TestNoTestSleeps(t *testing.T) {
	found := map[string]bool{}
	for _, folder := range foldersOf(t) {
		files, err := filepath.Glob(filepath.Join("../..", folder, "*_test.go"))
		require.NoError(t, err)
		for _, file := range files {
			tree, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
			require.NoError(t, err)
			for _, name := range sleepersOf(tree) {
				found[filepath.Join(folder, name)] = true
			}
		}
	}
	var unexpected, gone []string
	for name := range found {
		if sleepers[name] == "" {
			unexpected = append(unexpected, name)
		}
	}
	for name := range sleepers {
		if !found[name] {
			gone = append(gone, name)
		}
	}
	sort.Strings(unexpected)
	require.Empty(t, unexpected, "these sleep; advance a clock, or wait for a condition")
	require.Empty(t, gone, "these sleep no longer; take them off the list")
}

// sleepersOf returns the functions of a file that call time.Sleep.
func sleepersOf(tree *ast.File) []string {
	var names []string
	for _, declaration := range tree.Decls {
		f, ok := declaration.(*ast.FuncDecl)
		if ok && sleeps(f) {
			names = append(names, f.Name.Name)
		}
	}
	return names
}

// sleeps reports whether a function uses time.Sleep, also in a function within it.
func sleeps(f *ast.FuncDecl) bool {
	found := false
	ast.Inspect(f, func(node ast.Node) bool {
		selector, ok := node.(*ast.SelectorExpr)
		if ok && selector.Sel.Name == "Sleep" {
			if of, isName := selector.X.(*ast.Ident); isName && of.Name == "time" {
				found = true
			}
		}
		return !found
	})
	return found
}

func TestSleepers_areSeen(t *testing.T) {
	for _, row := range []struct {
		name, body string
		want       []string
	}{
		{"a call", `func TestA() { time.Sleep(1) }`, []string{"TestA"}},
		{"in a function within", `func TestA() { go func() { time.Sleep(1) }() }`, []string{"TestA"}},
		{"as a value", `func TestA() { wait := time.Sleep; wait(1) }`, []string{"TestA"}},
		{"in a method", `func (s *slow) Read() { time.Sleep(1) }`, []string{"Read"}},
		{"of another package", `func TestA() { bed.Sleep(1) }`, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			tree, err := parser.ParseFile(token.NewFileSet(), "row.go", "package p; "+row.body, 0)
			require.NoError(t, err)
			require.Equal(t, row.want, sleepersOf(tree))
		})
	}
}
