package policy

import (
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMatcher(t *testing.T) {
	match := NewMatcher(Match{Paths: []string{"/health", "/internal/*"}, Methods: []string{"GET", "HEAD"}}, nil)
	for _, row := range []struct {
		method, path string
		want         bool
	}{
		{"GET", "/health", true},
		{"HEAD", "/internal/a/b", true},
		{"POST", "/health", false},
		{"GET", "/healthy", false},
		{"GET", "/", false},
	} {
		require.Equal(t, row.want, match.Holds(httptest.NewRequest(row.method, row.path, nil)), row.method+" "+row.path)
	}
}
