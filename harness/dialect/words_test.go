package dialect

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/require"
)

// The code uses the field's own terms, which the glossary in docs/architecture.md lists. These checks keep other words for
// the same things out of names, comments and Lua scripts.

// metaphors are words that no name may contain, for each the term to use instead. A name is split where it changes to upper
// case: farAway contains far and away, while lookup does not contain look.
var metaphors = map[string]string{
	"pilot": "batch worker", "pilots": "batch workers",
	"rider": "piggyback call", "riders": "piggyback calls",
	"lander": "reporter", "landers": "reporters", "land": "report", "lands": "reports", "landed": "reported", "landing": "report, done",
	"passage": "tracked", "passages": "tracked",
	"flying": "in flight", "flight": "permitted", "flights": "permitted",
	"unhealthy": "slow circuit",
	"hand":      "cache, lease", "hands": "caches, leases", "handed": "cached, leased",
	"carry": "allow", "carries": "allow",
	"lean": "fast path", "front": "handler switch", "fronted": "handler switch", "facing": "current handler",
	"stumble": "panic", "stumbles": "panics", "stumbled": "panicked", "stumbler": "faulty",
	"tell": "report, notify", "tells": "reports", "told": "reported, logged", "untold": "unreported",
	"naming": "key maker", "trouble": "error", "troubles": "errors",
	"young": "recent", "crash": "abort", "crashes": "aborts", "launch": "start", "launches": "starts",
	"cleared": "claimed", "crowd": "concurrent requests", "crowded": "contended", "company": "renew together",
	"forming": "open", "hurry": "send if overdue", "shut": "close",
	"hear": "apply the reply", "hears": "applies", "heard": "answered", "learn": "apply the answer", "learns": "applies", "learnt": "applied",
	"look": "refresh, read", "looks": "refreshes", "looking": "refreshing",
	"seat": "reference", "seats": "references", "enrol": "register",
	"raw": "id", "raws": "ids", "away": "unavailable", "few": "cap, limit", "fewest": "least",
	"leave": "refresher, permission", "leaves": "refreshers",
}

// unmistakable are those that have no plain sense in any Go code.
var unmistakable = regexp.MustCompile(`^(pilot|rider|lander|landing|passage|flying|unhealthy|carry|carries|stumble.*|untold)s?$`)

// metaphoricNames are names of several words, or of one that is plain within others.
var metaphoricNames = map[string]string{
	"goOn": "finish, forward", "turnBack": "switch back", "takeAlone": "decide locally", "old": "previous, expired", "fits": "max join length",
}

// plainNames are parts of names that contain a metaphor's word in its plain sense: requests in flight, a client that went
// away.
var plainNames = regexp.MustCompile(`(?i)in_?flight|went_?away`)

// plainInSentences are those of the words above that a test may have in its name, which is a sentence.
var plainInSentences = map[string]bool{"leave": true, "leaves": true, "few": true, "look": true, "looks": true}

// metaphoricPhrases are what no comment may contain.
var metaphoricPhrases = []*regexp.Regexp{
	regexp.MustCompile(`(?i)\b(pilots?|riders?|landers?|passages?|stumbl\w*|untold|unhealthy|empty-?handed)\b`),
	regexp.MustCompile(`(?i)\b(in (the )?hand|hands? of (a|the) |(a|the|its|whose|each) hand|hand's)\b`),
	regexp.MustCompile(`(?i)\b(lands?|landing|flying|flies)\b`),
	regexp.MustCompile(`(?i)\bbeside (the |a |its )?(requests?|others)\b`),
	regexp.MustCompile(`(?i)\b(nobody|another|anybody)'s leave\b`),
	regexp.MustCompile(`(?i)\b(dear|dearer|dearest)\b`),
	regexp.MustCompile(`(?i)\b(at the most|of its own|of their own|so many|in the place of|tells? whether)\b`),
	regexp.MustCompile(`(?i)\b(is|was|are|were|be|been|stays?|while redis|redis) away\b`),
}

// outside are the folders of which only the comments, and unmistakable names, are checked.
var outside = []string{"harness", "upstream", "bundle", "examples"}

// wordFolders returns the folders of the product's own packages, with those that its tests and its build are made with.
func wordFolders(t *testing.T) (folders []string) {
	const root = "../.."
	isOutside := map[string]bool{"dist": true, ".git": true}
	for _, folder := range outside {
		isOutside[folder] = true
	}
	seen := map[string]bool{}
	require.NoError(t, filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		folder, err := filepath.Rel(root, path)
		if err == nil && entry.IsDir() && isOutside[folder] {
			return filepath.SkipDir
		}
		if folder = filepath.Dir(folder); strings.HasSuffix(path, ".go") && !seen[folder] {
			seen[folder] = true
			folders = append(folders, folder)
		}
		return err
	}))
	require.Contains(t, folders, "breaker")
	return folders
}

func TestWords(t *testing.T) {
	for _, folder := range wordFolders(t) {
		t.Run(strings.ReplaceAll(filepath.Join("resilience", folder), "/", "."), func(t *testing.T) {
			files, err := filepath.Glob(filepath.Join("../..", folder, "*.go"))
			require.NoError(t, err)
			require.NotEmpty(t, files)
			requireNone(t, files, true)
		})
	}
	for _, folder := range outside {
		t.Run(folder, func(t *testing.T) { requireNone(t, goFilesBelow(t, filepath.Join("../..", folder)), false) })
	}
}

// requireNone fails for each metaphor in the files.
func requireNone(t *testing.T, files []string, strict bool) {
	t.Helper()
	set := token.NewFileSet()
	for _, file := range files {
		if filepath.Base(file) == "words_test.go" {
			continue // it names them
		}
		tree, err := parser.ParseFile(set, file, nil, parser.ParseComments)
		require.NoError(t, err)
		for _, found := range metaphorsIn(set, tree, strict) {
			t.Error(found)
		}
	}
}

// goFilesBelow returns the Go files below a folder, which may be missing.
func goFilesBelow(t *testing.T, folder string) (files []string) {
	if _, err := os.Stat(folder); os.IsNotExist(err) {
		return nil
	}
	require.NoError(t, filepath.WalkDir(folder, func(path string, entry os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".go") {
			files = append(files, path)
		}
		return err
	}))
	return files
}

// metaphorsIn returns the metaphors in a file: in its comments, its own name, declared names and Lua scripts. If it is not
// strict, only unmistakable words count in names.
func metaphorsIn(set *token.FileSet, tree *ast.File, strict bool) (found []string) {
	add := func(at token.Pos, what string) { found = append(found, fmt.Sprintf("%s: %s", set.Position(at), what)) }
	for _, group := range tree.Comments {
		for _, line := range group.List {
			for _, phrase := range phrasesIn(line.Text) {
				add(line.Pos(), phrase)
			}
		}
	}
	base := strings.TrimSuffix(filepath.Base(set.Position(tree.Pos()).Filename), ".go")
	for _, metaphor := range metaphorsOf(base, strict) {
		add(tree.Pos(), metaphor)
	}
	for _, name := range declaredNames(tree) {
		for _, metaphor := range metaphorsOf(name.Name, strict) {
			add(name.Pos(), metaphor)
		}
	}
	ast.Inspect(tree, func(node ast.Node) bool {
		if literal, ok := node.(*ast.BasicLit); ok && literal.Kind == token.STRING {
			for _, metaphor := range metaphorsInLua(literal.Value, strict) {
				add(literal.Pos(), metaphor)
			}
		}
		return true
	})
	return found
}

// phrasesIn returns the metaphors in a comment.
func phrasesIn(comment string) (found []string) {
	for _, phrase := range metaphoricPhrases {
		if text := phrase.FindString(comment); text != "" {
			found = append(found, fmt.Sprintf("the comment says %q", text))
		}
	}
	return found
}

// metaphorsOf returns the metaphors in a name.
func metaphorsOf(name string, strict bool) (found []string) {
	if term := metaphoricNames[name]; term != "" && strict {
		found = append(found, fmt.Sprintf("the name %s: say %s", name, term))
	}
	for _, word := range wordsOf(plainNames.ReplaceAllString(name, "")) {
		isPlain := plainInSentences[word] && (strings.HasPrefix(name, "Test") || strings.HasPrefix(name, "Fuzz"))
		if term := metaphors[word]; term != "" && !isPlain && (strict || unmistakable.MatchString(word)) {
			found = append(found, fmt.Sprintf("the name %s contains %q: say %s", name, word, term))
		}
	}
	return found
}

// wordsOf splits a name into its words, in lower case.
func wordsOf(name string) []string {
	var spaced strings.Builder
	for i, r := range name {
		if unicode.IsUpper(r) && i > 0 {
			spaced.WriteByte(' ')
		}
		if r == '_' {
			r = ' '
		}
		spaced.WriteRune(unicode.ToLower(r))
	}
	return strings.Fields(spaced.String())
}

// declaredNames returns the names that a file declares: types, functions, fields, parameters, variables, constants, labels.
func declaredNames(tree *ast.File) (names []*ast.Ident) {
	ast.Inspect(tree, func(node ast.Node) bool {
		switch n := node.(type) {
		case *ast.FuncDecl:
			names = append(names, n.Name)
		case *ast.TypeSpec:
			names = append(names, n.Name)
		case *ast.ValueSpec:
			names = append(names, n.Names...)
		case *ast.Field:
			names = append(names, n.Names...)
		case *ast.LabeledStmt:
			names = append(names, n.Label)
		case *ast.AssignStmt:
			if n.Tok == token.DEFINE {
				names = append(names, identsOf(n.Lhs...)...)
			}
		case *ast.RangeStmt:
			if n.Tok == token.DEFINE {
				names = append(names, identsOf(n.Key, n.Value)...)
			}
		}
		return true
	})
	return names
}

func identsOf(expressions ...ast.Expr) (names []*ast.Ident) {
	for _, expression := range expressions {
		if name, ok := expression.(*ast.Ident); ok {
			names = append(names, name)
		}
	}
	return names
}

var (
	luaComment = regexp.MustCompile(`--(.*)`)
	luaLocals  = regexp.MustCompile(`\blocal +([a-zA-Z_][\w, ]*)`)
	luaParams  = regexp.MustCompile(`\bfunction\b *(\w*) *\(([^)]*)\)`)
	luaLoops   = regexp.MustCompile(`\bfor +([\w, ]+?) *(?:=|in\b)`)
	luaName    = regexp.MustCompile(`[a-zA-Z_]\w*`)
)

// metaphorsInLua returns the metaphors in the comments and names of a Go string, if that is a Lua script.
func metaphorsInLua(literal string, strict bool) (found []string) {
	text, err := strconv.Unquote(literal)
	if err != nil || !strings.Contains(text, "redis.call") && !strings.Contains(text, "local ") {
		return nil
	}
	for _, line := range strings.Split(text, "\n") {
		if comment := luaComment.FindString(line); comment != "" {
			found = append(found, phrasesIn(comment)...)
		}
		line = luaComment.ReplaceAllString(line, "")
		declared := ""
		for _, pattern := range []*regexp.Regexp{luaLocals, luaParams, luaLoops} {
			for _, match := range pattern.FindAllStringSubmatch(line, -1) {
				declared += strings.Join(match[1:], " ") + " "
			}
		}
		seen := map[string]bool{}
		for _, name := range luaName.FindAllString(declared, -1) {
			if !seen[name] {
				found = append(found, metaphorsOf(name, strict)...)
			}
			seen[name] = true
		}
	}
	return found
}

// TestWords_isSeen shows the check what it must find, and what not.
func TestWords_isSeen(t *testing.T) {
	for _, row := range []struct {
		name, source string
		found        int
	}{
		{"a type", `type pilot struct{}`, 1},
		{"a function", `func newLander() {}`, 1},
		{"a method", `type t int; func (t) carry() {}`, 1},
		{"a field", `type t struct { farAway int }`, 1},
		{"a parameter and a result", `func f(rider int) (passage bool) { return false }`, 2},
		{"a variable", `var flying int`, 1},
		{"a constant", `const unhealthy = 1`, 1},
		{"a local variable", `func f() { hand := 1; _ = hand }`, 1},
		{"a loop's variable", `func f(all []int) { for _, few := range all { _ = few } }`, 1},
		{"a variable of several", `func f() { a, told := 1, 2; _, _ = a, told }`, 1},
		{"a name of two plain words", `func goOn() {}; func turnBack() {}`, 2},
		{"a name that is plain within others", `func f() { old := 1; oldest := old; _ = oldest }`, 1},
		{"a comment", "// f asks the pilot.\nfunc f() {}", 1},
		{"a comment behind code", "func f() {} // nobody's leave is needed", 1},
		{"phrases", "// it has a lease in hand\n// it runs beside the requests\n// calls are dear\n// at the most two\n// a lock of its own\n// for so many bytes\n// Redis is away\nfunc f() {}", 7},
		{"a comment of a Lua script", "const s = `local a = 1 -- the rider's\n`", 1},
		{"a name of a Lua script", "const s = `local function tell(few)\n\tlocal landing = 1\nend\nfor raw in pairs(a) do end\nredis.call('GET', raw)`", 4},
		{"a test's name", `func TestPilot_leavesFewBehind() {}; func TestAllow_tells() {}`, 2},
		{"plain words", "// get, add, read and take may stay; so may requests in flight, and a handler.\nfunc f(inFlight, handler, lookup, island int) {}", 0},
		{"text in strings", `const s = "the pilot has a rider in hand"`, 0},
		{"a client that went away", "// the client went away\nfunc f() {}", 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			set := token.NewFileSet()
			tree, err := parser.ParseFile(set, "row.go", "package p\n"+row.source, parser.ParseComments)
			require.NoError(t, err)
			require.Len(t, metaphorsIn(set, tree, true), row.found)
		})
	}
	set := token.NewFileSet()
	tree, err := parser.ParseFile(set, "landing_test.go", "package p", parser.ParseComments)
	require.NoError(t, err)
	require.Len(t, metaphorsIn(set, tree, true), 1, "the file's name")
	tree, err = parser.ParseFile(set, "bench.go", "package p\n// the pilot\nfunc newRider(away, raw int) {}", parser.ParseComments)
	require.NoError(t, err)
	require.Len(t, metaphorsIn(set, tree, false), 2, "comments and unmistakable names, if it is not strict")
}
