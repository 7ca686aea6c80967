package readme

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const root = "../.."

// documents are the texts of all Markdown files of the project, by their path from its root.
type documents map[string]string

func read(t *testing.T) documents {
	t.Helper()
	all := documents{}
	for _, name := range filesOf(t, ".md") {
		all[name] = file(t, name)
	}
	require.Contains(t, all, readme)
	return all
}

func (d documents) with(name, text string) documents {
	changed := maps.Clone(d)
	changed[name] = text
	return changed
}

func (d documents) names() []string { return slices.Sorted(maps.Keys(d)) }

// filesOf returns the paths of the project's files with an ending, from the root. What make writes is left out.
func filesOf(t *testing.T, ending string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(root, path)
		if entry.IsDir() && (name == "dist" || name == ".git") {
			return fs.SkipDir
		}
		if !entry.IsDir() && strings.HasSuffix(name, ending) {
			names = append(names, filepath.ToSlash(name))
		}
		return nil
	})
	require.NoError(t, err)
	require.NotEmpty(t, names)
	return names
}

func file(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, name))
	require.NoError(t, err)
	return string(bytes.ReplaceAll(content, []byte("\r\n"), []byte("\n")))
}

func tree(t *testing.T, name string, mode parser.Mode) *ast.File {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), name, file(t, name), mode)
	require.NoError(t, err)
	return parsed
}

// section returns the text below a heading, up to the next heading of any level.
func section(text, heading string) string {
	begin := regexp.MustCompile(`(?m)^#+ ` + regexp.QuoteMeta(heading) + `$`).FindStringIndex(text)
	if begin == nil {
		return ""
	}
	text = text[begin[1]:]
	if end := regexp.MustCompile(`(?m)^##+ `).FindStringIndex(text); end != nil {
		text = text[:end[0]]
	}
	return text
}

type fence struct {
	language, text string
}

var fenced = regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$")

func fences(text string) (all []fence) {
	for _, found := range fenced.FindAllStringSubmatch(text, -1) {
		all = append(all, fence{found[1], found[2]})
	}
	return all
}

func withoutFences(text string) string {
	return fenced.ReplaceAllString(text, "")
}

var codeSpan = regexp.MustCompile("``[^\n]+?``|`[^`\n]+`")

// spans returns the words between backticks, without those.
func spans(text string) (all []string) {
	for _, span := range codeSpan.FindAllString(withoutFences(text), -1) {
		all = append(all, strings.Trim(span, "`"))
	}
	return all
}

// code returns what is set as code: the blocks, and the words between backticks.
func code(text string) string {
	all := spans(text)
	for _, block := range fences(text) {
		all = append(all, block.text)
	}
	return strings.Join(all, "\n")
}

// prose returns what is not set as code, in one line.
func prose(text string) string {
	return strings.Join(strings.Fields(codeSpan.ReplaceAllString(withoutFences(text), "")), " ")
}
