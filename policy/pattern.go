package policy

import (
	"regexp"
	"strings"
)

// patterns are patterns of a text, in which * stands for any run of characters. They are immutable.
type patterns struct {
	expression *regexp.Regexp // for texts of usual length
	pieces     [][]string     // of each pattern, between its asterisks: for longer ones
	ignoreCase bool
}

// maxUsual is the length of the longest text that the expression is asked about, in bytes. It takes a tenth of a second for a text of a
// megabyte, which any client may send.
const maxUsual = 512

// patternsOf returns nil if there is no pattern.
func patternsOf(texts []string, ignoreCase bool) *patterns {
	if len(texts) == 0 {
		return nil
	}
	p := &patterns{ignoreCase: ignoreCase}
	each := []string{}
	for _, text := range texts {
		each = append(each, strings.ReplaceAll(regexp.QuoteMeta(text), `\*`, `.*`))
		if ignoreCase {
			text = strings.ToLower(text)
		}
		p.pieces = append(p.pieces, strings.Split(text, "*"))
	}
	flags := "(?s)"
	if ignoreCase {
		flags = "(?si)"
	}
	p.expression = regexp.MustCompile(flags + "^(?:" + strings.Join(each, "|") + ")$")
	return p
}

// match reports whether a text matches one of the patterns.
func (p *patterns) match(text string) bool {
	if len(text) <= maxUsual {
		return p.expression.MatchString(text)
	}
	if p.ignoreCase {
		text = strings.ToLower(text)
	}
	for _, pieces := range p.pieces {
		if inOrder(text, pieces) {
			return true
		}
	}
	return false
}

// inOrder reports whether a text begins with the first piece, ends with the last one, and has the others in between, in their order.
func inOrder(text string, pieces []string) bool {
	last := len(pieces) - 1
	if last == 0 {
		return text == pieces[0]
	}
	if !strings.HasPrefix(text, pieces[0]) {
		return false
	}
	rest := text[len(pieces[0]):]
	for _, piece := range pieces[1:last] {
		at := strings.Index(rest, piece)
		if at < 0 {
			return false
		}
		rest = rest[at+len(piece):]
	}
	return strings.HasSuffix(rest, pieces[last])
}
