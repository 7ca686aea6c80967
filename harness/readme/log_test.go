package readme

import (
	"fmt"
	"go/ast"
	"go/token"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// logWriters are the functions that write to the log: the place of the message among their arguments, and what it begins with. The fields
// follow the message, names and values in turn, where named is false.
var logWriters = map[string]struct {
	place  int
	prefix string
	named  bool
}{
	"Info": {0, "", false}, "Warn": {0, "", false}, "Debug": {0, "", false},
	"logRefusal": {2, "refused: ", true}, "logNamed": {1, "", true}, "logByLimit": {2, "", true},
}

// anything stands for a part of a message that is no constant.
const anything = "*"

// written is what the code writes to the log.
type written struct {
	messages map[string]bool // with anything in some
	fields   map[string]bool
}

// logSchema requires that the tables of the page on operations have each message and each field that the plugin writes, and no other.
func logSchema(t *testing.T, all documents) (problems []string) {
	code := writtenByPlugin(t)
	messages, fields := firstCells(section(all[operations], "Messages")), firstCells(section(all[operations], "Fields"))
	for _, pattern := range sorted(keys(code.messages)) {
		if pattern == anything || strings.HasSuffix(pattern, ": "+anything) {
			continue // a warning about the configuration, or written by one of logWriters
		}
		if !matchesAny(pattern, messages) {
			problems = append(problems, fmt.Sprintf("%s: not in the table of messages", pattern))
		}
	}
	for _, message := range messages {
		if !isWritten(message, code.messages) {
			problems = append(problems, message+": the plugin writes no such message")
		}
	}
	for _, field := range sorted(keys(code.fields)) {
		if !matchesAny(field, fields) {
			problems = append(problems, field+": not in the table of fields")
		}
	}
	for _, field := range fields {
		if !code.fields[field] && field != "middleware" {
			problems = append(problems, field+": the plugin writes no such field")
		}
	}
	return problems
}

func matchesAny(pattern string, texts []string) bool {
	expression := regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(pattern), regexp.QuoteMeta(anything), "[a-z-]+") + "$")
	for _, text := range texts {
		if expression.MatchString(text) {
			return true
		}
	}
	return false
}

func isWritten(message string, patterns map[string]bool) bool {
	for pattern := range patterns {
		if pattern != anything && !strings.HasSuffix(pattern, ": "+anything) && matchesAny(pattern, []string{message}) {
			return true
		}
	}
	return false
}

// firstCells returns what the first cells of a table hold as code.
func firstCells(text string) (cells []string) {
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(text, -1) {
		cells = append(cells, row[1])
	}
	return cells
}

func keys(set map[string]bool) (all []string) {
	for key := range set {
		all = append(all, key)
	}
	return all
}

// writtenByPlugin reads the plugin's root package, which alone writes to the log.
func writtenByPlugin(t *testing.T) *written {
	t.Helper()
	code := &written{messages: map[string]bool{}, fields: map[string]bool{}}
	constants := map[string][]string{}
	var files []*ast.File
	for _, name := range filesOf(t, ".go") {
		if strings.Contains(name, "/") || strings.HasSuffix(name, "_test.go") || strings.HasSuffix(name, "_gen.go") {
			continue
		}
		parsed := tree(t, name, 0)
		files = append(files, parsed)
		ast.Inspect(parsed, func(node ast.Node) bool {
			if group, ok := node.(*ast.GenDecl); ok && group.Tok == token.CONST {
				addConstants(group, constants)
			}
			return true
		})
	}
	for _, parsed := range files {
		for _, declaration := range parsed.Decls {
			if function, ok := declaration.(*ast.FuncDecl); ok {
				code.read(function, constants)
			}
		}
	}
	require.NotEmpty(t, code.messages)
	require.NotEmpty(t, code.fields)
	return code
}

func addConstants(group *ast.GenDecl, constants map[string][]string) {
	for _, one := range group.Specs {
		spec := one.(*ast.ValueSpec)
		for i, value := range spec.Values {
			if text, ok := literal(value); ok {
				constants[spec.Names[i].Name] = append(constants[spec.Names[i].Name], text)
			}
		}
	}
}

func literal(value ast.Expr) (string, bool) {
	basic, ok := value.(*ast.BasicLit)
	if !ok || basic.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(basic.Value)
	return text, err == nil
}

// read notes what a function writes.
func (code *written) read(function *ast.FuncDecl, constants map[string][]string) {
	assigned := map[string][]string{}
	ast.Inspect(function, func(node ast.Node) bool {
		if assign, ok := node.(*ast.AssignStmt); ok && len(assign.Lhs) == len(assign.Rhs) {
			for i, value := range assign.Rhs {
				name, isName := assign.Lhs[i].(*ast.Ident)
				if text, ok := literal(value); ok && isName {
					assigned[name.Name] = append(assigned[name.Name], text)
				}
			}
		}
		return true
	})
	values := func(name string) []string {
		if len(assigned[name]) > 0 {
			return assigned[name]
		}
		if len(constants[name]) > 0 {
			return constants[name]
		}
		return []string{anything}
	}
	ast.Inspect(function, func(node ast.Node) bool {
		call, ok := node.(*ast.CallExpr)
		if !ok {
			return true
		}
		if name, ok := call.Fun.(*ast.Ident); ok {
			if name.Name == "append" && isFields(call.Args[0]) {
				code.addFields(call.Args[1:])
			}
			if writer, ok := logWriters[name.Name]; ok && writer.named {
				code.addMessages(writer.prefix, call.Args[writer.place], values)
			}
		}
		selected, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if selected.Sel.Name == "writeEvent" && len(call.Args) > 2 {
			if list, ok := call.Args[2].(*ast.CompositeLit); ok {
				code.addFields(list.Elts)
			}
		}
		writer, ok := logWriters[selected.Sel.Name]
		if !ok || len(call.Args) <= writer.place || !writer.named && !isLog(selected.X) {
			return true
		}
		code.addMessages(writer.prefix, call.Args[writer.place], values)
		if !writer.named {
			code.addFields(call.Args[writer.place+1:])
		} else if selected.Sel.Name == "logNamed" {
			code.addFields(call.Args[writer.place+1 : writer.place+2])
		}
		return true
	})
}

func (code *written) addMessages(prefix string, value ast.Expr, values func(name string) []string) {
	for _, text := range textsOf(value, values) {
		code.messages[prefix+text] = true
	}
}

func isLog(value ast.Expr) bool {
	if name, ok := value.(*ast.Ident); ok {
		return name.Name == "log"
	}
	selected, ok := value.(*ast.SelectorExpr)
	return ok && selected.Sel.Name == "log"
}

func isFields(value ast.Expr) bool {
	name, ok := value.(*ast.Ident)
	return ok && name.Name == "fields"
}

func (code *written) addFields(values []ast.Expr) {
	for i := 0; i < len(values); i += 2 {
		if text, ok := literal(values[i]); ok {
			code.fields[text] = true
		}
	}
}

// textsOf returns what an expression may be.
func textsOf(value ast.Expr, values func(name string) []string) []string {
	if text, ok := literal(value); ok {
		return []string{text}
	}
	switch part := value.(type) {
	case *ast.Ident:
		return values(part.Name)
	case *ast.BinaryExpr:
		var all []string
		for _, left := range textsOf(part.X, values) {
			for _, right := range textsOf(part.Y, values) {
				all = append(all, left+right)
			}
		}
		return all
	}
	return []string{anything}
}
