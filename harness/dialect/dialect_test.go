// Package dialect holds the plugin's code to the part of Go that the interpreter runs as the compiler does. What is
// forbidden here was seen to fail, or to do something else, in Yaegi v0.16.1. The language version in go.mod, 1.21, keeps
// the compiler from anything newer.
package dialect

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"testing"

	"github.com/resilient-gateway/resilience/internal/pluginfolders"
	"github.com/stretchr/testify/require"
)

// foldersOf returns the folders of what Traefik interprets.
func foldersOf(t *testing.T) []string {
	folders, err := pluginfolders.Of("../..")
	require.NoError(t, err)
	return folders
}

// forbiddenImports cannot be had in the interpreter, or are not what they seem there.
var forbiddenImports = []string{"unsafe", "syscall", "os/exec", "embed", "slices", "maps", "cmp", "iter", "log/slog"}

func TestDialect(t *testing.T) {
	set := token.NewFileSet()
	folders, all := [][]*ast.File{}, []*ast.File{}
	for _, folder := range foldersOf(t) {
		trees := sources(t, set, folder)
		folders = append(folders, trees)
		all = append(all, trees...)
	}
	for _, trees := range folders {
		known := namesIn(trees, all)
		require.NotEmpty(t, known.functions)
		for _, tree := range trees {
			require.Empty(t, violations(set, tree, known))
		}
	}
}

// TestDialect_isSeen shows the check every form that it must refuse.
func TestDialect_isSeen(t *testing.T) {
	rows := []struct{ name, body string }{
		{"select", `func f(c chan int) { select { case <-c: default: } }`},
		{"range over a number", `func f() { for i := range 3 { _ = i } }`},
		{"several values with nil", `func f() { var a, b *int; a, b = nil, nil; _, _ = a, b }`},
		{"several values with nil", `func f() { var a error; var b int; b, a = 1, nil; _, _ = a, b }`},
		{"a call among several values", `func f() { var a, b int; a, b = g(), 1; _, _ = a, b }; func g() int { return 1 }`},
		{"a call among several values", `func f() { var a, b int; a, b = 1, g()+1; _, _ = a, b }; func g() int { return 1 }`},
		{"a call among several values", `func f() { a, b := g(), []int{}; _, _ = a, b }; func g() int { return 1 }`},
		{"the builtin min", `func f() int { return min(1, 2) }`},
		{"the builtin clear", `func f(m map[int]int) { clear(m) }`},
		{"type parameters", `func f[T any](x T) {}`},
		{"type parameters", `type s[T any] struct{}`},
		{"errors.As to a type of our own", `type e struct{}; func f(err error) { var t e; errors.As(err, &t) }`},
		{"an error type of our own", `type e struct{}; func (e) Error() string { return "" }`},
		{"a goroutine without recover", `func f() { go g() }; func g() {}`},
		{"a goroutine without recover", `func f() { time.AfterFunc(1, g) }; func g() {}`},
		{"a goroutine without recover", `type t struct{ g func() }; func f(a *t) { a.g = func() {}; go a.g() }`},
		{"return <-", `func f(c chan int) int { return <-c }`},
		{"a builtin after the first result", `func f(a, b []int) (int, int) { return len(a), len(b) }`},
		{"a case without a body", `func f(i int) bool { switch { case i > 1, i < 0: default: return false }; return true }`},
		{"a call of a field among several results", `type s struct { f func() int }; func x(a s) (int, bool) { return a.f(), true }`},
		{"a call of a field among several results", `type s struct { f func() int }; func x(a s) (bool, int) { return true, a.f() }`},
		{"a call of a field among several results", `type s struct { f func() int }; func x(a []s) (int, bool) { return a[0].f(), true }`},
		{"a call of a field among several results", `type s struct { f func() int }; func x(a s) (int, bool) { h := a.f; return h(), true }`},
		{"a call of a field among several results", `type s struct { f func() int }; func x(a s) (int, bool) { var h = a.f; return h(), true }`},
		{"a call of a field among several results", `type s struct { f func() int }; func x(a s) (int, bool) { h := a.f; return func() (int, bool) { return h(), true }() }`},
		{"a call of a field among several results", `type f func() int; type s struct { f f }; func x(a s) (int, bool) { return a.f(), true }`},
		{"a declared function as a result", `func x() func() int { return g }; func g() int { return 1 }`},
		{"a declared function as a result", `func x() func() int { h := g; return h }; func g() int { return 1 }`},
		{"a declared function as a result", `func x() (func() int, bool) { return g, true }; func g() int { return 1 }`},
		{"the import slices", `import "slices"; var _ = slices.Contains([]int{1}, 1)`},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			set := token.NewFileSet()
			tree, err := parser.ParseFile(set, "row.go", "package p; "+row.body, 0)
			require.NoError(t, err)
			require.Contains(t, problemsOf(violations(set, tree, namesIn([]*ast.File{tree}, nil))), row.name)
		})
	}
}

// TestDialect_allows shows the check forms that look like forbidden ones and work.
func TestDialect_allows(t *testing.T) {
	const declared = `; type s struct { f func() int; g int }; func g() int { return 1 }; func (a s) m() int { return 1 }`
	for _, body := range []string{
		`func x(a s) int { return a.f() }`,
		`func x(a s) (int, bool) { return (a.f()), true }`,
		`func x(a s) (int, bool) { return 1 + a.f(), true }`,
		`func x(a s) (int, bool) { n := a.f(); return n, true }`,
		`func x(a s) (int, bool) { var h func() int; h = a.f; return h(), true }`,
		`func x(a s) (int, bool) { return a.m(), true }`,
		`func x(a s) (int, bool) { h := a.m; return h(), true }`,
		`func x(h func() int) (int, bool) { return h(), true }`,
		`func x() (int, bool) { return g(), true }`,
		`func x() func() int { var h func() int; h = g; return h }`,
		`func x() func() int { return func() int { return g() } }`,
		`func x(g func() int) func() int { return g }`,
		`func x(a s) func() int { return a.f }`,
		`func x(a s) func() int { return a.m }`,
		`func x(a s) (int, int) { return a.g, a.g }`,
	} {
		t.Run(body, func(t *testing.T) {
			set := token.NewFileSet()
			tree, err := parser.ParseFile(set, "row.go", "package p; "+body+declared, 0)
			require.NoError(t, err)
			require.Empty(t, violations(set, tree, namesIn([]*ast.File{tree}, nil)))
		})
	}
}

// check walks one file.
type check struct {
	set       *token.FileSet
	found     []string
	recovers  map[string]bool // functions of the file that recover at their top
	declared  map[string]bool // names that the file declares itself
	netErrors map[string]bool // variables of the type net.Error, which errors.As may set
	names     *names
}

func violations(set *token.FileSet, tree *ast.File, known *names) []string {
	c := &check{set: set, names: known, recovers: map[string]bool{}, declared: map[string]bool{}, netErrors: map[string]bool{}}
	for _, declaration := range tree.Decls {
		if f, ok := declaration.(*ast.FuncDecl); ok {
			c.declared[f.Name.Name] = true
			c.recovers[f.Name.Name] = recoversAtTop(f.Body)
		}
	}
	ast.Inspect(tree, c.literal)
	ast.Inspect(tree, c.visit)
	return c.found
}

func (c *check) forbid(node ast.Node, what string) {
	c.found = append(c.found, fmt.Sprintf("%s: %s", c.set.Position(node.Pos()), what))
}

func (c *check) visit(node ast.Node) bool {
	switch n := node.(type) {
	case *ast.ImportSpec:
		path, _ := strconv.Unquote(n.Path.Value)
		for _, forbidden := range forbiddenImports {
			if path == forbidden {
				c.forbid(n, "the import "+path)
			}
		}
	case *ast.SelectStmt:
		c.forbid(n, "select: its cases are shared by all goroutines")
	case *ast.RangeStmt:
		if literal, ok := n.X.(*ast.BasicLit); ok && literal.Kind == token.INT {
			c.forbid(n, "range over a number (yaegi#1701)")
		}
	case *ast.AssignStmt:
		c.assignment(n)
	case *ast.CallExpr:
		c.call(n)
	case *ast.FuncDecl:
		c.results(n.Body)
		if n.Type.TypeParams != nil {
			c.forbid(n, "type parameters")
		}
		if n.Recv != nil && n.Name.Name == "Error" && len(n.Type.Params.List) == 0 {
			c.forbid(n, "an error type of our own")
		}
	case *ast.TypeSpec:
		if n.TypeParams != nil {
			c.forbid(n, "type parameters")
		}
	case *ast.ValueSpec:
		if selector, ok := n.Type.(*ast.SelectorExpr); ok && selector.Sel.Name == "Error" {
			for _, name := range n.Names {
				c.netErrors[name.Name] = true
			}
		}
	case *ast.GoStmt:
		if !c.guarded(n.Call.Fun) {
			c.forbid(n, "a goroutine without recover at its top: a panic in it ends Traefik")
		}
	case *ast.ReturnStmt:
		for i, result := range n.Results {
			if i > 0 && callsBuiltin(result) {
				c.forbid(n, "a builtin after the first result")
			}
			if unary, ok := result.(*ast.UnaryExpr); ok && unary.Op == token.ARROW {
				c.forbid(n, "return <-")
			}
		}
	case *ast.CaseClause:
		if len(n.Body) == 0 {
			c.forbid(n, "a case without a body")
		}
	}
	return true
}

func callsBuiltin(result ast.Expr) bool {
	call, ok := result.(*ast.CallExpr)
	if !ok {
		return false
	}
	name, ok := call.Fun.(*ast.Ident)
	return ok && (name.Name == "len" || name.Name == "cap" || name.Name == "append" || name.Name == "make" || name.Name == "new")
}

func (c *check) assignment(n *ast.AssignStmt) {
	if len(n.Rhs) < 2 {
		return
	}
	if n.Tok != token.ASSIGN {
		if anyOf(n.Rhs, hasCall) && anyOf(n.Rhs, isLiteral) {
			c.forbid(n, "a call among several values with a composite literal: the others are empty")
		}
		return
	}
	for _, value := range n.Rhs {
		if name, ok := value.(*ast.Ident); ok && name.Name == "nil" {
			c.forbid(n, "several values with nil among them: it panics")
		}
		if hasCall(value) {
			c.forbid(n, "a call among several values: the other variables are not assigned")
		}
	}
}

func anyOf(values []ast.Expr, is func(ast.Expr) bool) bool {
	for _, value := range values {
		if is(value) {
			return true
		}
	}
	return false
}

// isLiteral reports whether an expression is a composite literal. A pointer to one is none.
func isLiteral(expression ast.Expr) bool {
	_, is := expression.(*ast.CompositeLit)
	return is
}

// hasCall reports whether an expression calls anything. What a function literal in it calls is not called there.
func hasCall(expression ast.Expr) bool {
	found := false
	ast.Inspect(expression, func(n ast.Node) bool {
		_, isCall := n.(*ast.CallExpr)
		_, isLiteral := n.(*ast.FuncLit)
		found = found || isCall
		return !isLiteral
	})
	return found
}

func (c *check) call(n *ast.CallExpr) {
	switch f := n.Fun.(type) {
	case *ast.Ident:
		if (f.Name == "min" || f.Name == "max" || f.Name == "clear") && !c.declared[f.Name] {
			c.forbid(n, "the builtin "+f.Name)
		}
	case *ast.SelectorExpr:
		from, ok := f.X.(*ast.Ident)
		if ok && from.Name == "errors" && f.Sel.Name == "As" && !c.intoNetError(n) {
			c.forbid(n, "errors.As to a type of our own")
		}
		if ok && f.Sel.Name == "AfterFunc" && !c.guarded(n.Args[1]) {
			c.forbid(n, "a goroutine without recover at its top: a panic in it ends Traefik")
		}
	}
}

func (c *check) intoNetError(n *ast.CallExpr) bool {
	unary, ok := n.Args[1].(*ast.UnaryExpr)
	if !ok {
		return false
	}
	name, ok := unary.X.(*ast.Ident)
	return ok && c.netErrors[name.Name]
}

// literal notes whether a function that a field is set to recovers first.
func (c *check) literal(node ast.Node) bool {
	n, ok := node.(*ast.AssignStmt)
	if !ok || len(n.Lhs) != 1 {
		return true
	}
	field, isField := n.Lhs[0].(*ast.SelectorExpr)
	function, isLiteral := n.Rhs[0].(*ast.FuncLit)
	if isField && isLiteral {
		c.recovers[field.Sel.Name] = recoversAtTop(function.Body)
	}
	return true
}

// guarded reports whether the function that a goroutine runs recovers first.
func (c *check) guarded(function ast.Expr) bool {
	switch f := function.(type) {
	case *ast.Ident:
		return c.recovers[f.Name]
	case *ast.SelectorExpr:
		return c.recovers[f.Sel.Name]
	case *ast.FuncLit:
		return recoversAtTop(f.Body)
	}
	return false
}

// recoversAtTop reports whether a body begins with a deferred function that recovers.
func recoversAtTop(body *ast.BlockStmt) bool {
	if body == nil || len(body.List) == 0 {
		return false
	}
	deferred, ok := body.List[0].(*ast.DeferStmt)
	if !ok {
		return false
	}
	found := false
	ast.Inspect(deferred.Call, func(node ast.Node) bool {
		if call, ok := node.(*ast.CallExpr); ok {
			if name, ok := call.Fun.(*ast.Ident); ok && name.Name == "recover" {
				found = true
			}
		}
		return true
	})
	return found
}
