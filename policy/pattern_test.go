package policy

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Long texts are compared in another way than short ones, with the same result.
func TestPatterns_ofLongTexts(t *testing.T) {
	long := strings.Repeat("x", 600)
	for _, row := range []struct {
		pattern, text string
		want          bool
	}{
		{"/a", "/a" + long, false},
		{"/a*", "/a" + long, true},
		{"/a*", "/b" + long, false},
		{"*b", long + "b", true},
		{"*b", long + "c", false},
		{"*", long, true},
		{"**", long, true},
		{"a*b*c", "a" + long + "b" + long + "c", true},
		{"a*b*c", "a" + long + "c" + long + "b", false},
		{"a*b*c", "ab" + long, false},
		{"*ab*ab*", long + "aba" + long, false},
		{"*ab*ab*", long + "abab" + long, true},
		{long + "*" + long, long + "x", false},
		{long + "*" + long, long + long, true},
		{long, long, true},
		{"*é*", long + "é", true},
		{"*\n*", long + "\n" + long, true},
		{"*B*", long + "b", false},
	} {
		require.Equal(t, row.want, patternsOf([]string{"/other", row.pattern}, false).match(row.text), "%s", row.pattern)
	}
	require.True(t, patternsOf([]string{"*.EXAMPLE"}, true).match(long+".exAmple"))
}

// A client may send a megabyte of what a pattern has to look at.
func TestPatterns_ofHugeTextsAreFast(t *testing.T) {
	huge := "/api/" + strings.Repeat("/x", 500000)
	p := patternsOf([]string{"*badbot*", "/*/edit*", "/api/*y"}, false)
	begun := time.Now()
	for i := 0; i < 10; i++ {
		require.False(t, p.match(huge))
	}
	require.Less(t, time.Since(begun), time.Second)
}
