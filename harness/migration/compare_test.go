package migration

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// system is a column of a table of figures: what is measured there.
type system struct {
	column     string
	middleware block
}

// load is a row of a table of figures.
type load struct {
	row     string
	changes map[string]block // of a system's middleware, by its column
	skip    []string         // columns with no figure
	measure func(t *testing.T, m measured) float64
}

// measured is one system under one load.
type measured struct {
	stack *stack
	name  string // of the middleware
	a, b  string // two routers with it, of the first gateway
}

// compare starts gateways with each system once for each load, measures, and compares the figures with those in the table. It gives the
// loads one after the other where each is to be alone.
func compare(t *testing.T, gateways int, table map[string]map[string]string, systems []system, loads []load, alone bool) {
	t.Helper()
	middlewares := map[string]block{}
	name := func(row, column int) string { return fmt.Sprintf("load%d-system%d", row, column) }
	for i, l := range loads {
		for j, s := range systems {
			middlewares[name(i, j)] = with(s.middleware, l.changes[s.column])
		}
	}
	stack := startStack(t, gateways, middlewares)
	for i, l := range loads {
		require.Contains(t, table, l.row)
		for j, s := range systems {
			cell := table[l.row][s.column]
			if slices.Contains(l.skip, s.column) {
				require.Equal(t, none, cell, "%s: %s", l.row, s.column)
				continue
			}
			url := stack.gateways[0] + "/" + name(i, j)
			m := measured{stack, name(i, j), url + "/a", url + "/b"}
			t.Run(l.row+": "+s.column, func(t *testing.T) {
				if !alone {
					t.Parallel()
				}
				got := l.measure(t, m)
				t.Logf("measured %.4g, the page states %s", got, cell)
				require.True(t, matches(t, cell, got), "the page states %s, measured were %.4g", cell, got)
			})
		}
	}
}

// complete requires that each row of the tables is measured.
func complete(t *testing.T, tables map[string]map[string]string, loads ...[]load) {
	t.Helper()
	all := slices.Concat(loads...)
	for row := range tables {
		require.True(t, slices.ContainsFunc(all, func(l load) bool { return l.row == row }), "no test measures %q", row)
	}
}

// passed sends requests to the first router and counts those that pass.
func passed(t *testing.T, m measured, n int) float64 {
	t.Helper()
	got := send(atOnce(n), same(m.a))
	require.Zero(t, got.status[0], "%s: %s", m.name, got)
	return got.passed()
}

// onEachGateway returns the first router's URL on a request's gateway, in turn.
func (m measured) onEachGateway(i int) string {
	path := strings.TrimPrefix(m.a, m.stack.gateways[0])
	return m.stack.gateways[i%len(m.stack.gateways)] + path
}

// refusedOf counts the answers other than 200.
func refusedOf(a *answers) float64 {
	n := 0
	for status, count := range a.status {
		if status != http.StatusOK {
			n += count
		}
	}
	return float64(n)
}
