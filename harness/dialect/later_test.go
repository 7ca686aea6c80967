package dialect

import (
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"testing"

	"github.com/stretchr/testify/require"
)

// The interpreter makes code of a function literal as soon as it has read it. A function that is declared further on, in the
// same file or a later one, has no body by then: deferred or passed on as a value it does nothing, without an error. A call of
// it is looked up when it is made.

// TestLater: no function literal defers or passes on a function that is declared after it.
func TestLater(t *testing.T) {
	set := token.NewFileSet()
	imports := importer.ForCompiler(set, "source", nil)
	for _, folder := range foldersOf(t) {
		require.Empty(t, tooLate(t, set, imports, sources(t, set, folder)...))
	}
}

// TestLater_isSeen shows the check what it must refuse, and what not.
func TestLater_isSeen(t *testing.T) {
	rows := []struct {
		name, source string
		refused      bool
	}{
		{"deferred", `func f() func() { return func() { defer g() } }; func g() {}`, true},
		{"a method, deferred", `type s int; func f(x s) func() { return func() { defer x.g() } }; func (s) g() {}`, true},
		{"deferred in itself", `func f() func() { return func() { defer f() } }`, true},
		{"a value", `func f() func() { return func() { h(g) } }; func h(func()) {}; func g() {}`, true},
		{"a method as a value", `type s int; func f(x s) func() { return func() { h(x.g) } }; func h(func()) {}; func (s) g() {}`, true},
		{"declared before", `func g() {}; func f() func() { return func() { defer g() } }`, false},
		{"called", `func f() func() { return func() { g() } }; func g() {}`, false},
		{"within another call", `func f() func() { return func() { h(g()) } }; func h(int) {}; func g() int { return 1 }`, false},
		{"a literal, deferred", `func f() func() { return func() { defer func() { g() }() } }; func g() {}`, false},
		{"not in a literal", `func f() { defer g() }; func g() {}`, false},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			set := token.NewFileSet()
			tree, err := parser.ParseFile(set, "row.go", "package p; "+row.source, 0)
			require.NoError(t, err)
			require.Equal(t, row.refused, len(tooLate(t, set, nil, tree)) > 0)
		})
	}
}

// tooLate returns the functions that a literal defers or hands on before they are declared. The files are in the order of
// their names, as the interpreter reads them.
func tooLate(t *testing.T, set *token.FileSet, imports types.Importer, files ...*ast.File) (found []string) {
	info := &types.Info{Defs: map[*ast.Ident]types.Object{}, Uses: map[*ast.Ident]types.Object{}}
	config := types.Config{Importer: imports}
	_, err := config.Check(files[0].Name.Name, set, files, info)
	require.NoError(t, err)
	var declarations []ast.Decl
	for _, file := range files {
		declarations = append(declarations, file.Decls...)
	}
	after := map[types.Object]bool{} // this declaration, or declared after it
	for _, declaration := range declarations {
		if function, ok := declaration.(*ast.FuncDecl); ok {
			after[info.Defs[function.Name]] = true
		}
	}
	for _, declaration := range declarations {
		for _, name := range handedOn(declaration) {
			if after[info.Uses[name]] {
				found = append(found, fmt.Sprintf("%s: a function literal has no %s yet, which is declared further on",
					set.Position(name.Pos()), name.Name))
			}
		}
		if function, ok := declaration.(*ast.FuncDecl); ok {
			delete(after, info.Defs[function.Name])
		}
	}
	return found
}

// handedOn returns the names in the function literals of a declaration, but for those that are called there and then.
func handedOn(declaration ast.Decl) (names []*ast.Ident) {
	deferred, called := map[*ast.CallExpr]bool{}, map[*ast.Ident]bool{}
	literals := 0
	var open []bool // for each node that is being visited, whether it is a literal
	ast.Inspect(declaration, func(node ast.Node) bool {
		if node == nil {
			if open[len(open)-1] {
				literals--
			}
			open = open[:len(open)-1]
			return true
		}
		_, isLiteral := node.(*ast.FuncLit)
		open = append(open, isLiteral)
		switch n := node.(type) {
		case *ast.FuncLit:
			literals++
		case *ast.DeferStmt:
			deferred[n.Call] = true
		case *ast.CallExpr:
			if !deferred[n] {
				called[nameOf(n.Fun)] = true
			}
		case *ast.Ident:
			if literals > 0 && !called[n] {
				names = append(names, n)
			}
		}
		return true
	})
	return names
}

// nameOf is the name of a function or method that is called by its name.
func nameOf(function ast.Expr) *ast.Ident {
	switch f := function.(type) {
	case *ast.Ident:
		return f
	case *ast.SelectorExpr:
		return f.Sel
	}
	return nil
}
