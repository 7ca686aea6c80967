package dialect

import (
	"go/ast"
	"go/token"
	"strings"
)

// What a function returns goes wrong in two forms that only names tell from others: a call of a function that is a field of a struct, among
// several results (R43), and a declared function as a result itself (R46).

// names are what some files declare.
type names struct {
	functions map[string]bool // declared functions
	fields    map[string]bool // fields of structs that hold functions
}

// namesIn returns what files declare. Functions count in the first files only, those of a folder.
func namesIn(folder, others []*ast.File) *names {
	n := &names{functions: map[string]bool{}, fields: map[string]bool{}}
	for _, tree := range folder {
		for _, declaration := range tree.Decls {
			if f, ok := declaration.(*ast.FuncDecl); ok && f.Recv == nil {
				n.functions[f.Name.Name] = true
			}
		}
	}
	types := map[string]bool{"HandlerFunc": true}
	for _, tree := range append(append([]*ast.File{}, folder...), others...) {
		ast.Inspect(tree, func(node ast.Node) bool {
			if spec, ok := node.(*ast.TypeSpec); ok && isFunctionType(spec.Type, types) {
				types[spec.Name.Name] = true
			}
			return true
		})
	}
	for _, tree := range append(append([]*ast.File{}, folder...), others...) {
		ast.Inspect(tree, func(node ast.Node) bool {
			if s, ok := node.(*ast.StructType); ok {
				for _, field := range s.Fields.List {
					for _, name := range field.Names {
						n.fields[name.Name] = n.fields[name.Name] || isFunctionType(field.Type, types)
					}
				}
			}
			return true
		})
	}
	return n
}

// isFunctionType reports whether an expression is the type of a function, or one of the named types.
func isFunctionType(expression ast.Expr, named map[string]bool) bool {
	switch t := expression.(type) {
	case *ast.FuncType:
		return true
	case *ast.Ident:
		return named[t.Name]
	case *ast.SelectorExpr:
		return named[t.Sel.Name]
	}
	return false
}

// results checks what a function and those within it return.
func (c *check) results(body *ast.BlockStmt) {
	if body == nil {
		return
	}
	fromField, declared := map[string]bool{}, map[string]bool{} // variables that are defined as such
	define := func(name ast.Expr, value ast.Expr) {
		if ident, ok := name.(*ast.Ident); ok {
			fromField[ident.Name] = fromField[ident.Name] || c.isField(value)
			declared[ident.Name] = declared[ident.Name] || c.isDeclared(value)
		}
	}
	ast.Inspect(body, func(node ast.Node) bool {
		switch n := node.(type) {
		case *ast.AssignStmt:
			for i := range n.Lhs {
				if n.Tok == token.DEFINE && len(n.Lhs) == len(n.Rhs) {
					define(n.Lhs[i], n.Rhs[i])
				}
			}
		case *ast.ValueSpec:
			for i := range n.Values {
				if len(n.Names) == len(n.Values) {
					define(n.Names[i], n.Values[i])
				}
			}
		}
		return true
	})
	ast.Inspect(body, func(node ast.Node) bool {
		n, ok := node.(*ast.ReturnStmt)
		if !ok {
			return true
		}
		for _, result := range n.Results {
			ident, _ := result.(*ast.Ident)
			if c.isDeclared(result) || ident != nil && declared[ident.Name] {
				c.forbid(n, "a declared function as a result: it panics")
			}
			call, ok := result.(*ast.CallExpr)
			if !ok || len(n.Results) < 2 {
				continue
			}
			called, _ := call.Fun.(*ast.Ident)
			if c.isField(call.Fun) || called != nil && fromField[called.Name] {
				c.forbid(n, "a call of a field among several results: its value is lost")
			}
		}
		return true
	})
}

func (c *check) isField(expression ast.Expr) bool {
	selector, ok := expression.(*ast.SelectorExpr)
	return ok && c.names.fields[selector.Sel.Name]
}

// isDeclared reports whether an expression names a declared function, and no variable of the same name.
func (c *check) isDeclared(expression ast.Expr) bool {
	ident, ok := expression.(*ast.Ident)
	return ok && c.names.functions[ident.Name] && (ident.Obj == nil || ident.Obj.Kind == ast.Fun)
}

// problemsOf joins what was found.
func problemsOf(found []string) string { return strings.Join(found, "\n") }
