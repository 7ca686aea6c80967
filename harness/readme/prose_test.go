package readme

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// maxLines is how long a document may be.
var maxLines = map[string]int{readme: 250, performance: 150}

func lengths(_ *testing.T, all documents) (problems []string) {
	for name, most := range maxLines {
		if lines := strings.Count(all[name], "\n"); lines > most {
			problems = append(problems, fmt.Sprintf("%s: %d lines, more than %d", name, lines, most))
		}
	}
	return problems
}

// unwanted are words that the prose does not use: each has a plain one.
var unwanted = []string{
	"dear", "at the most", "beside requests", "beside the requests", "of its own", "of their own", "of ours", "who comes", "so many",
	"in the place of", "nobody's leave", "tells whether", "goes on", "as long as", "is away", "was away",
}

var unwantedWords = func() *regexp.Regexp {
	var quoted []string
	for _, word := range unwanted {
		quoted = append(quoted, regexp.QuoteMeta(word))
	}
	return regexp.MustCompile(`(?i)\b(?:` + strings.Join(quoted, "|") + `)\b`)
}()

func words(_ *testing.T, all documents) (problems []string) {
	for _, name := range all.names() {
		text := prose(all[name])
		for _, at := range unwantedWords.FindAllStringIndex(text, -1) {
			around := text[max(0, at[0]-40):min(len(text), at[1]+20)]
			problems = append(problems, fmt.Sprintf("%s: %q in: %s", name, strings.ToLower(text[at[0]:at[1]]), around))
		}
	}
	return problems
}

var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// targets returns where the links of a document lead, without those to other sites: a path from the root, and an anchor or "".
func targets(all documents, name string) (found [][2]string) {
	for _, match := range link.FindAllStringSubmatch(codeSpan.ReplaceAllString(withoutFences(all[name]), "``"), -1) {
		to, anchor, _ := strings.Cut(match[1], "#")
		if strings.Contains(to, "://") {
			continue
		}
		if to == "" {
			to = path.Base(name)
		}
		found = append(found, [2]string{path.Join(path.Dir(name), to), anchor})
	}
	return found
}

func links(_ *testing.T, all documents) (problems []string) {
	anchors := map[string]map[string]bool{}
	for name, text := range all {
		anchors[name] = anchorsOf(text)
	}
	for _, name := range all.names() {
		for _, target := range targets(all, name) {
			to, anchor := target[0], target[1]
			if _, err := os.Stat(filepath.Join(root, to)); err != nil {
				problems = append(problems, fmt.Sprintf("%s: %s: no such file", name, to))
			} else if anchor != "" && !anchors[to][anchor] {
				problems = append(problems, fmt.Sprintf("%s: %s#%s: no such heading", name, to, anchor))
			}
		}
	}
	return problems
}

// anchorsOf returns the anchors of a document: those that are written, and those that GitHub makes of headings.
func anchorsOf(text string) map[string]bool {
	anchors := map[string]bool{}
	for _, id := range regexp.MustCompile(`<a id="([^"]+)"`).FindAllStringSubmatch(text, -1) {
		anchors[id[1]] = true
	}
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(withoutFences(text), -1) {
		slug := regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(strings.ToLower(heading[1]), "")
		slug = strings.ReplaceAll(slug, " ", "-")
		unique := slug
		for i := 1; anchors[unique]; i++ {
			unique = fmt.Sprintf("%s-%d", slug, i)
		}
		anchors[unique] = true
	}
	return anchors
}

// reachable requires that links lead from the README to each document in docs.
func reachable(_ *testing.T, all documents) (problems []string) {
	reached := map[string]bool{readme: true}
	for queue := []string{readme}; len(queue) > 0; queue = queue[1:] {
		for _, target := range targets(all, queue[0]) {
			if _, isDocument := all[target[0]]; isDocument && !reached[target[0]] {
				reached[target[0]] = true
				queue = append(queue, target[0])
			}
		}
	}
	for _, name := range all.names() {
		if strings.HasPrefix(name, "docs/") && !reached[name] {
			problems = append(problems, name+": no way leads to it from the README")
		}
	}
	return problems
}
