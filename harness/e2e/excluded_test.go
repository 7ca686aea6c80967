package e2e

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestExcludedIPs_areRefusedWhereTraefikRefusesThem gives lists of excludedIPs to Traefik's own rateLimit and to ours, in a file. A blank in
// place of the list is what a template delivers for a variable that is not set.
func TestExcludedIPs_areRefusedWhereTraefikRefusesThem(t *testing.T) {
	t.Parallel()
	lists := []any{
		[]string{"", "10.0.0.1"}, []string{"10.0.0.1", ""}, []string{"10.0.0.1", " "}, "10.0.0.1,,10.0.0.2", "10.0.0.1,", ",10.0.0.1", ",", ", ",
		"", " ", []string{""}, []string{" "}, []string{}, []string{"", ""},
		"10.0.0.1", "10.0.0.0/8, 10.0.0.1", []string{"10.0.0.1", "2001:db8::/32"}, []string{"10.0.0.0/33"}, "proxy",
	}
	middlewares, routers := block{}, block{}
	for i, list := range lists {
		limit := block{"average": 1, "sourceCriterion": block{"ipStrategy": block{"excludedIPs": list}}}
		middlewares[fmt.Sprint("theirs", i)] = block{"rateLimit": limit}
		middlewares[fmt.Sprint("ours", i)] = block{"plugin": block{"resilience": block{"rateLimit": block{
			"capacity": 1, "sourceCriterion": block{"ipStrategy": block{"excludedIPs": list}},
		}}}}
	}
	for name := range middlewares {
		routers[name] = block{
			"rule": "Path(`/" + name + "`)", "entryPoints": []string{"web"}, "middlewares": []string{name}, "service": "noop@internal",
		}
	}
	dynamic := t.TempDir()
	writeDynamic(t, dynamic, block{"health": block{}})
	writeYAML(t, filepath.Join(dynamic, "lists.yml"), block{"http": block{"routers": routers, "middlewares": middlewares}})
	g := startTraefik(t, options{dynamic: dynamic})
	for i, list := range lists {
		t.Run(fmt.Sprintf("%q", list), func(t *testing.T) {
			theirs, ours := g.middlewareStatus(fmt.Sprint("theirs", i)), g.middlewareStatus(fmt.Sprint("ours", i))
			t.Log(theirs, ours)
			require.Equal(t, theirs, ours)
		})
	}
}

// middlewareStatus returns what Traefik says of a middleware in a file: enabled or disabled.
func (g *traefik) middlewareStatus(name string) string {
	g.t.Helper()
	var shown struct{ Status string }
	getJSON(g.t, "http://"+g.api+"/api/http/middlewares/"+name+"@file", &shown)
	return shown.Status
}
