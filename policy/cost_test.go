package policy

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCost(t *testing.T) {
	rule := CostRule{Header: "x-cost", Max: 10, Methods: map[string]int64{"POST": 5}, Paths: []PathCost{{"/search/all*", 9}, {"/search*", 7}}}
	for _, row := range []struct {
		name, request string
		want          int64
	}{
		{"nothing that costs", "GET /", 1},
		{"the method", "POST /", 5},
		{"the path", "GET /search?q=1", 7},
		{"the path before the method", "POST /search", 7},
		{"the first path that matches", "GET /search/all", 9},
		{"the header", "GET / | X-Cost: 3", 3},
		{"the header before the path", "POST /search | X-Cost: 3", 3},
		{"the highest cost", "GET / | X-Cost: 10", 10},
		{"above the highest", "POST / | X-Cost: 11", 1},
		{"zero", "POST / | X-Cost: 0", 1},
		{"less than zero", "POST / | X-Cost: -4", 1},
		{"no whole number", "POST / | X-Cost: 2.5", 1},
		{"no number", "POST / | X-Cost: many", 1},
		{"empty", "POST / | X-Cost: ", 1},
		{"more than any number", "POST / | X-Cost: 99999999999999999999", 1},
		{"another base", "POST / | X-Cost: 0x2", 1},
		{"blanks", "GET / | X-Cost:  4 ", 4},
		{"the last of two lines", "GET / | X-Cost: 9 | X-Cost: 2", 2},
		{"the last of two lines, which is none", "GET / | X-Cost: 9 | X-Cost: x", 1},
		{"two numbers in a line", "GET / | X-Cost: 2, 3", 1},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			require.Equal(t, row.want, compileCost(&rule).of(asked(row.request)))
		})
	}
	require.Equal(t, int64(1), compileCost(&CostRule{Methods: map[string]int64{"POST": 5}}).of(asked("GET / | X-Cost: 3")), "without a header's name")
}

func TestStatuses(t *testing.T) {
	require.True(t, Statuses{}.Empty())
	some := Statuses{Ranges: []StatusRange{{401, 401}, {500, 599}}}
	require.False(t, some.Empty())
	for _, row := range []struct {
		status int
		want   bool
	}{{400, false}, {401, true}, {402, false}, {499, false}, {500, true}, {550, true}, {599, true}, {600, false}, {0, false}} {
		require.Equal(t, row.want, some.Contain(row.status), row.status)
		require.False(t, Statuses{}.Contain(row.status))
	}
}
