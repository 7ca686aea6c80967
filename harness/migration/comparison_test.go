package migration

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const comparison = "docs/comparison.md"

var testLink = regexp.MustCompile("\\[`((?:Test|Fuzz)\\w+)`\\]\\(([^)]+)\\)")

// unproven returns the claims of the plugin in a text that link to no test, and the links that lead to none.
func unproven(text page) (problems []string) {
	ours := -1
	for _, line := range strings.Split(string(text), "\n") {
		if strings.HasPrefix(line, "|--") {
			continue
		}
		if !strings.HasPrefix(line, "| ") {
			ours = -1
			continue
		}
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		if ours < 0 {
			for i, heading := range cells {
				if heading == "This plugin" && i > 0 {
					ours = i
				}
			}
			if ours < 0 {
				ours = 0 // the table of versions
			}
			continue
		}
		links := testLink.FindAllStringSubmatch(cells[ours], -1)
		if regexp.MustCompile(`^yes|^\d`).MatchString(cells[ours]) && len(links) == 0 {
			problems = append(problems, cells[0]+": no test")
		}
		for _, link := range links {
			content, err := os.ReadFile(filepath.Join(root, filepath.Dir(comparison), link[2]))
			if err != nil || !strings.Contains(string(content), "\nfunc "+link[1]+"(") {
				problems = append(problems, fmt.Sprintf("%s: %s is not in %s", cells[0], link[1], link[2]))
			}
		}
	}
	return problems
}

func TestComparison_eachClaimOfThePluginHasATest(t *testing.T) {
	text := readPage(t, comparison)
	require.Greater(t, len(testLink.FindAllString(string(text), -1)), 20)
	require.Empty(t, unproven(text))
}

func TestComparison_aClaimWithoutATestIsSeen(t *testing.T) {
	const head = "| Feature | This plugin | Another |\n|---|---|---|\n| a feature | "
	require.Equal(t, []string{"a feature: no test"}, unproven(page(head+"yes | no |")))
	require.Equal(t, []string{"a feature: TestGone is not in ../answer_test.go"}, unproven(page(head+"yes: [`TestGone`](../answer_test.go) | no |")))
	require.Equal(t, []string{"a feature: TestAnswer_healthy is not in ../gone_test.go"}, unproven(page(head+"yes: [`TestAnswer_healthy`](../gone_test.go) | no |")))
	require.Empty(t, unproven(page(head+"**no** | yes |")))
	require.Empty(t, unproven(page(head+"yes: [`TestAnswer_healthy`](../answer_test.go) | no |")))
}
