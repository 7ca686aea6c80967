package main

import (
	"regexp"
	"strings"
)

// link is a Markdown link or image whose target is a path: it has no scheme and is no anchor.
var link = regexp.MustCompile(`(!?)(\[[^\]]*\])\(([^)#:\s][^):\s]*)\)`)

// absoluteLinks makes the README's relative links absolute. A bundle has no docs folder, and the catalogue shows the README on a
// page of its site.
func absoluteLinks(readme []byte, ref string) []byte {
	lines := strings.SplitAfter(string(readme), "\n")
	code := false
	for i, line := range lines {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			code = !code
		}
		if !code {
			lines[i] = link.ReplaceAllStringFunc(line, func(found string) string {
				parts := link.FindStringSubmatch(found)
				view := "blob"
				if parts[1] == "!" {
					view = "raw"
				}
				return parts[1] + parts[2] + "(https://" + module + "/" + view + "/" + ref + "/" + parts[3] + ")"
			})
		}
	}
	return []byte(strings.Join(lines, ""))
}
