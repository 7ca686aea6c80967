package dialect

import (
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The interpreter looks for a promoted field through every field that is a struct, in the order in which they stand and to
// any depth, embedded or not: where the compiler takes x.f from the struct that x embeds, it may take the f of another one.

// TestPromoted: all that is promoted is the same for both.
func TestPromoted(t *testing.T) {
	set := token.NewFileSet()
	imports := importer.ForCompiler(set, "source", nil)
	for _, folder := range foldersOf(t) {
		require.Empty(t, misread(t, set, imports, sources(t, set, folder)...))
	}
}

// sources reads the files of a folder that are interpreted, in the order of their names.
func sources(t *testing.T, set *token.FileSet, folder string) (trees []*ast.File) {
	files, err := filepath.Glob(filepath.Join("../..", folder, "*.go"))
	require.NoError(t, err)
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		tree, err := parser.ParseFile(set, file, nil, 0)
		require.NoError(t, err)
		trees = append(trees, tree)
	}
	require.NotEmpty(t, trees, folder)
	return trees
}

// TestPromoted_isSeen shows the check what it must refuse, and what not.
func TestPromoted_isSeen(t *testing.T) {
	const structs = `package p; type limit struct { period int }; type bucket struct { level, period int }; func (bucket) full() {}; `
	rows := []struct {
		name, source string
		refused      bool
	}{
		{"a pointer before it", `type entry struct { limit *limit; bucket }; func f(e *entry) int { return e.period }`, true},
		{"a struct before it", `type entry struct { limit limit; bucket }; func f(e entry) int { return e.period }`, true},
		{"one deeper before it", `type in struct { limit limit }; type entry struct { *in; bucket }; func f(e entry) int { return e.period }`, true},
		{"written to", `type entry struct { limit *limit; bucket }; func f(e *entry) { e.period = 1 }`, true},
		{"a method", `type in struct { bucket }; type on struct { full int }; type entry struct { on on; in }; func f(e entry) { e.full() }`, true},
		{"behind it", `type entry struct { bucket; limit *limit }; func f(e *entry) int { return e.period }`, false},
		{"another name", `type entry struct { limit *limit; bucket }; func f(e *entry) int { return e.level }`, false},
		{"in full", `type entry struct { limit *limit; bucket }; func f(e *entry) int { return e.bucket.period }`, false},
		{"of its own", `type entry struct { limit *limit; bucket; period int }; func f(e *entry) int { return e.period }`, false},
		{"a method of no field's name", `type entry struct { limit *limit; bucket }; func f(e *entry) { e.full() }`, false},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			set := token.NewFileSet()
			tree, err := parser.ParseFile(set, "row.go", structs+row.source, 0)
			require.NoError(t, err)
			require.Equal(t, row.refused, len(misread(t, set, nil, tree)) > 0)
		})
	}
}

// misread returns the selectors of a package that the interpreter follows to something else.
func misread(t *testing.T, set *token.FileSet, imports types.Importer, files ...*ast.File) (found []string) {
	info := &types.Info{Selections: map[*ast.SelectorExpr]*types.Selection{}}
	config := types.Config{Importer: imports}
	pkg, err := config.Check(files[0].Name.Name, set, files, info)
	require.NoError(t, err)
	for expression, s := range info.Selections {
		path := interpreted(pkg, s.Recv(), expression.Sel.Name, map[types.Type]bool{})
		way := s.Index() // through embedded structs to the field or method
		isAnother := s.Kind() == types.FieldVal && !slices.Equal(way, path)
		isField := s.Kind() == types.MethodVal && len(path) > 0 && len(path) < len(way)
		if len(path) > 0 && isAnother || isField {
			found = append(found, fmt.Sprintf("%s: the promoted %s is another in the interpreter; write the way to it in full",
				set.Position(expression.Pos()), expression.Sel.Name))
		}
	}
	return found
}

// interpreted is the way to a field as the interpreter's lookupField finds it; none where it finds none, as in the types of
// compiled packages.
func interpreted(pkg *types.Package, of types.Type, name string, seen map[types.Type]bool) []int {
	if pointer, ok := of.Underlying().(*types.Pointer); ok {
		of = pointer.Elem()
	}
	fields, ok := of.Underlying().(*types.Struct)
	if !ok || seen[of] || isCompiled(pkg, of) {
		return nil
	}
	seen[of] = true
	for i := range fields.NumFields() {
		if fields.Field(i).Name() == name {
			return []int{i}
		}
	}
	for i := range fields.NumFields() {
		if path := interpreted(pkg, fields.Field(i).Type(), name, seen); path != nil {
			return append([]int{i}, path...)
		}
	}
	return nil
}

// isCompiled tells whether the type is of a package that the interpreter does not read: the standard library, whose paths
// have no dot.
func isCompiled(pkg *types.Package, of types.Type) bool {
	named, ok := of.(*types.Named)
	if !ok || named.Obj().Pkg() == nil || named.Obj().Pkg() == pkg {
		return false
	}
	host, _, _ := strings.Cut(named.Obj().Pkg().Path(), "/")
	return !strings.Contains(host, ".")
}
