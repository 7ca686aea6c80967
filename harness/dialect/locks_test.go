package dialect

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"testing"

	"github.com/stretchr/testify/require"
)

// A panic in a request becomes a 500, and Traefik keeps running. A lock that is still held then stops every later request. So a
// lock is released by defer, unless nothing is called while it is held.

// lockedFolders are those that release locks by this rule. The fast path does not, as a defer is expensive there.
var lockedFolders = []string{"breaker", "internal/store", "internal/logging", "internal/recorder", "identity"}

// lockers are functions that return with a lock held, and the method of their result that releases it.
var lockers = map[string]string{"beginLocalChange": "commit"}

// TestLocks: no lock is held across a call without a deferred unlock.
func TestLocks(t *testing.T) {
	for _, folder := range lockedFolders {
		set := token.NewFileSet()
		for _, tree := range sources(t, set, folder) {
			for _, found := range heldAcrossCalls(set, tree) {
				t.Error(found)
			}
		}
	}
}

// TestLocks_isSeen shows the check what it must refuse, and what not.
func TestLocks_isSeen(t *testing.T) {
	for _, row := range []struct {
		name, body string
		refused    bool
	}{
		{"deferred at once", `mu.Lock(); defer mu.Unlock(); g()`, false},
		{"deferred later", `mu.Lock(); g(); defer mu.Unlock()`, true},
		{"not deferred, across a call", `mu.Lock(); g(); mu.Unlock()`, true},
		{"not deferred, across a call in a condition", `mu.Lock(); if x := g(); x { y = 1 }; mu.Unlock()`, true},
		{"not deferred, across a call of a method", `mu.Lock(); a.b.g(); mu.Unlock()`, true},
		{"not deferred, across no call", `mu.Lock(); x = append(x, len(y)); mu.Unlock(); g()`, false},
		{"never unlocked", `mu.Lock(); x = 1`, true},
		{"unlocked in a branch only", `mu.Lock(); if x { mu.Unlock(); return }; g()`, true},
		{"another lock deferred", `mu.Lock(); defer other.Unlock()`, true},
		{"in a literal", `h(func() { mu.Lock(); g(); mu.Unlock() })`, true},
		{"in a case", `switch { case x: mu.Lock(); g(); mu.Unlock() }`, true},
		{"a reader's lock", `mu.RLock(); g(); mu.RUnlock()`, true},
		{"a function that locks", `c := beginLocalChange(b); defer c.commit(); g()`, false},
		{"a function that locks, not deferred", `c := beginLocalChange(b); g(); c.commit()`, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			set := token.NewFileSet()
			tree, err := parser.ParseFile(set, "row.go", "package p; func f() { "+row.body+" }", 0)
			require.NoError(t, err)
			require.Equal(t, row.refused, len(heldAcrossCalls(set, tree)) > 0)
		})
	}
}

// heldAcrossCalls returns the places at which a lock is taken that a panic may leave locked.
func heldAcrossCalls(set *token.FileSet, tree *ast.File) (found []string) {
	check := func(statements []ast.Stmt) {
		for i, statement := range statements {
			if release, ok := releaseOf(statement); ok && !isReleased(release, statements[i+1:]) {
				found = append(found, fmt.Sprintf("%s: a panic may leave this locked; defer %s()", set.Position(statement.Pos()), release))
			}
		}
	}
	ast.Inspect(tree, func(node ast.Node) bool {
		switch n := node.(type) {
		case *ast.FuncDecl:
			return lockers[n.Name.Name] == ""
		case *ast.BlockStmt:
			check(n.List)
		case *ast.CaseClause:
			check(n.Body)
		}
		return true
	})
	return found
}

// releaseOf returns the function that releases what a statement locks.
func releaseOf(statement ast.Stmt) (release string, locks bool) {
	if n, ok := statement.(*ast.AssignStmt); ok && len(n.Lhs) == 1 && len(n.Rhs) == 1 {
		call, ok := n.Rhs[0].(*ast.CallExpr)
		if !ok {
			return "", false
		}
		method, locks := lockers[types.ExprString(call.Fun)]
		return types.ExprString(n.Lhs[0]) + "." + method, locks
	}
	call, ok := callOf(statement)
	if !ok {
		return "", false
	}
	selector, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return "", false
	}
	unlocks := map[string]string{"Lock": ".Unlock", "RLock": ".RUnlock"}
	method, locks := unlocks[selector.Sel.Name]
	return types.ExprString(selector.X) + method, locks
}

// isReleased reports whether the statements after a lock release it: by defer at once, or later without a call before.
func isReleased(release string, statements []ast.Stmt) bool {
	for i, statement := range statements {
		if deferred, ok := statement.(*ast.DeferStmt); ok {
			return i == 0 && types.ExprString(deferred.Call.Fun) == release
		}
		if call, ok := callOf(statement); ok && types.ExprString(call.Fun) == release {
			return true
		}
		if callsSomething(statement) {
			return false
		}
	}
	return false
}

func callOf(statement ast.Stmt) (call *ast.CallExpr, ok bool) {
	if n, isExpression := statement.(*ast.ExprStmt); isExpression {
		call, ok = n.X.(*ast.CallExpr)
	}
	return call, ok
}

// callsSomething reports whether a statement calls more than builtins that do not panic.
func callsSomething(statement ast.Stmt) (calls bool) {
	harmless := map[string]bool{"len": true, "cap": true, "append": true, "delete": true}
	ast.Inspect(statement, func(node ast.Node) bool {
		if call, ok := node.(*ast.CallExpr); ok && !harmless[types.ExprString(call.Fun)] {
			calls = true
		}
		return true
	})
	return calls
}
