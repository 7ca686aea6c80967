package readme

import (
	"fmt"
	"go/ast"
	"go/parser"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// key is one of the configuration's, as config.go has it.
type key struct {
	kind      string // Block, List, Map, or empty for a single value
	byDefault string // – if the comment names none
	ofBlocks  bool   // a map of blocks
	elsewhere bool   // the tables have it under another path
}

var (
	single = []string{"Text", "Number", "Duration", "true/false"}
	option = regexp.MustCompile("(?m)^\\| <a id=\"([^\"]*)\" href=\"([^\"]*)\">`([^`]+)`</a> \\| ([^.|]+)\\. [^|]+ \\| ([^|]+) \\| ([^|]*)\\|$")
)

// configurationKeys compares the tables of options with the structs in config.go.
func configurationKeys(t *testing.T, all documents) (problems []string) {
	keys := configKeys(t)
	seen := map[string]bool{}
	for _, cells := range option.FindAllStringSubmatch(all[configuration], -1) {
		anchor, link, path, kind, byDefault, required := cells[1], cells[2], cells[3], cells[4], cells[5], strings.TrimSpace(cells[6])
		want, known := keys[path]
		if !known {
			problems = append(problems, path+": no such key")
			continue
		}
		if seen[path] {
			problems = append(problems, path+": twice")
		}
		seen[path] = true
		if wanted := "opt-" + strings.ToLower(strings.NewReplacer(".", "-", "<", "", ">", "").Replace(path)); anchor != wanted {
			problems = append(problems, fmt.Sprintf("%s: anchor %q, not %q", path, anchor, wanted))
		}
		if link != "#"+anchor {
			problems = append(problems, fmt.Sprintf("%s: link to %q, not to its anchor", path, link))
		}
		if want.kind != kind && (want.kind != "" || !slices.Contains(single, kind)) {
			problems = append(problems, fmt.Sprintf("%s: type %q, not %q", path, kind, want.kind))
		}
		if required != "No" && !strings.HasPrefix(required, "If ") {
			problems = append(problems, fmt.Sprintf("%s: required is %q, neither No nor a condition", path, required))
		}
		problems = append(problems, compareDefault(path, byDefault, want)...)
	}
	for path, k := range keys {
		if !seen[path] && !k.elsewhere {
			problems = append(problems, path+": not in the tables")
		}
	}
	return problems
}

// commonKeys compares the README's table of common keys with config.go. A row may have several keys, and one default for all or one
// for each.
func commonKeys(t *testing.T, all documents) (problems []string) {
	keys := configKeys(t)
	rows := regexp.MustCompile("(?m)^\\| (`[a-z][A-Za-z.]*`(?:, `[a-z][A-Za-z.]*`)*) \\| ([^|]+) \\| [^|]+ \\|$").
		FindAllStringSubmatch(section(all[readme], "Kubernetes"), -1)
	for _, cells := range rows {
		paths, defaults := strings.Split(strings.ReplaceAll(cells[1], "`", ""), ", "), strings.Split(cells[2], ", ")
		for i, path := range paths {
			byDefault := cells[2]
			if len(defaults) == len(paths) {
				byDefault = defaults[i]
			}
			want, known := keys[path]
			if !known {
				problems = append(problems, path+": no such key")
				continue
			}
			problems = append(problems, compareDefault(path, byDefault, want)...)
		}
	}
	if len(rows) < 10 {
		problems = append(problems, fmt.Sprintf("%d rows of common keys", len(rows)))
	}
	return problems
}

func compareDefault(path, byDefault string, want key) []string {
	if text := strings.ReplaceAll(byDefault, "`", ""); !strings.EqualFold(text, want.byDefault) {
		return []string{fmt.Sprintf("%s: default %q, not %q", path, text, want.byDefault)}
	}
	return nil
}

// anyName stands for the names in a map of blocks.
const anyName = "<name>"

// below returns the path of what a map at a path has under a name.
func below(path, name string, keys map[string]key) string {
	if keys[path].ofBlocks {
		name = anyName
	}
	return strings.TrimPrefix(path+"."+name, ".")
}

// configKeys returns the keys of the structs in config.go, as redis.tls.ca, from their json tags, and the default that each
// comment names. Within a map of blocks, the tables need the keys of a struct only once.
func configKeys(t *testing.T) map[string]key {
	structs := map[string]*ast.StructType{}
	ast.Inspect(tree(t, "config.go", parser.ParseComments), func(node ast.Node) bool {
		if spec, ok := node.(*ast.TypeSpec); ok {
			structs[spec.Name.Name] = spec.Type.(*ast.StructType)
		}
		return true
	})
	keys := map[string]key{}
	walked := map[string]bool{}
	var walk func(path, name string, elsewhere bool)
	walk = func(path, name string, elsewhere bool) {
		require.Contains(t, structs, name)
		elsewhere = elsewhere || walked[name] && strings.Contains(path, anyName)
		walked[name] = true
		for _, field := range structs[name].Fields.List {
			tag, err := strconv.Unquote(field.Tag.Value)
			require.NoError(t, err)
			name, _, _ := strings.Cut(reflect.StructTag(tag).Get("json"), ",")
			if name == "-" {
				continue
			}
			k := key{byDefault: defaultIn(field.Doc.Text()), elsewhere: elsewhere}
			switch kind := field.Type.(type) {
			case *ast.StarExpr:
				k.kind = "Block"
				walk(path+name+".", kind.X.(*ast.Ident).Name, elsewhere)
			case *ast.ArrayType:
				k.kind = "List"
			case *ast.MapType:
				k.kind = "Map"
				if value, isBlock := kind.Value.(*ast.StarExpr); isBlock {
					k.ofBlocks = true
					walk(path+name+"."+anyName+".", value.X.(*ast.Ident).Name, elsewhere)
				}
			}
			keys[path+name] = k
		}
	}
	walk("", "Config", false)
	require.Contains(t, keys, "rateLimit.sourceCriterion.ipStrategy.depth")
	return keys
}

var defaultInComment = regexp.MustCompile(`Default: (.+?)\.(?: |$)`)

func defaultIn(comment string) string {
	found := defaultInComment.FindStringSubmatch(strings.Join(strings.Fields(comment), " "))
	if found == nil {
		return "–"
	}
	return found[1]
}
