package main

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func benchOf(t *testing.T, arguments ...string) (*bench, error) {
	o, err := parse(arguments, io.Discard)
	require.NoError(t, err)
	return newBench(o)
}

func TestNewBench(t *testing.T) {
	for _, row := range []struct {
		arguments        string
		cases, workloads string
		rounds, seconds  int
		contenders       []contender
	}{
		{"", "default,metrics,shipped", "a,b,c,c256,d,e,f,g", 7, 2, []contender{none, noop, builtin, builtinOpen, ours}},
		{"-case default -only a -rounds 3 -time 3s", "default", "a", 3, 3, []contender{none, noop, builtin, builtinOpen, ours}},
		{"-short", "default", "a,d", 3, 2, []contender{none, builtin, ours}},
	} {
		b, err := benchOf(t, strings.Fields(row.arguments)...)
		require.NoError(t, err)
		var cases, names []string
		for _, c := range b.configurations {
			cases = append(cases, c.Name)
		}
		for _, w := range b.workloads {
			names = append(names, w.Name)
		}
		require.Equal(t, row.cases, strings.Join(cases, ","))
		require.Equal(t, row.workloads, strings.Join(names, ","))
		require.Equal(t, row.rounds, b.rounds)
		require.Equal(t, row.seconds, b.seconds)
		require.Equal(t, row.contenders, b.contenders)
	}
}

func TestNewBench_rejects(t *testing.T) {
	for arguments, says := range map[string]string{
		"-only z":                `-only: there is no workload "z"; use a, b, c, c256, d, e, f`,
		"-case bare":             "-case: there is no case",
		"-time 1500ms":           "-time: 1.5s is not a number of whole seconds",
		"-time 0s":               "-time: 0s is not a number of whole seconds",
		"-rounds 0":              "-rounds: 0 is too few",
		"-short -case shipped":   "-short has its own case and workloads",
		"-short -only b":         "-short has its own case and workloads",
		"-short -redis-delay 1s": "-short has its own case and workloads",
	} {
		_, err := benchOf(t, strings.Fields(arguments)...)
		require.ErrorContains(t, err, says)
	}
}

func TestReport_saysFirstWhichCaseIsWhich(t *testing.T) {
	dir := t.TempDir()
	r := report{Configurations: describe(configurations), Cases: []*oneCase{}}
	for _, c := range configurations {
		one := measured("a", nil, 0)
		one.Medians = map[contender]map[string]stats{}
		for _, who := range []contender{none, noop, builtin, ours} {
			one.Medians[who] = map[string]stats{"cpu": {Median: 100, Min: 90, Max: 120}}
		}
		r.Cases = append(r.Cases, &oneCase{Configuration: c, Results: []*result{one}})
	}
	samples, plot := filepath.Join(dir, "bench.json"), filepath.Join(dir, "plot.svg")
	require.NoError(t, r.write(samples))
	text, err := os.ReadFile(samples)
	require.NoError(t, err)
	require.Regexp(t, `^\{\s*"configurations": \[\s*"default, the main case: default Traefik \(neither metrics nor access log, GOGC=100`, string(text))
	require.True(t, json.Valid(text))

	for cases, title := range map[string]string{
		"":        "default Traefik (neither metrics nor access log, GOGC=100, no GOMEMLIMIT)",
		"shipped": "shipped configuration (metrics and access log, GOGC=400, GOMEMLIMIT=512MiB)",
	} {
		require.NoError(t, command([]string{"-from", samples, "-case", cases, "-svg", plot}, io.Discard))
		drawn, err := os.ReadFile(plot)
		require.NoError(t, err)
		require.Contains(t, string(drawn), title)
	}
	r.Cases = r.Cases[:1]
	require.NoError(t, r.write(samples))
	require.ErrorContains(t, command([]string{"-from", samples, "-case", "shipped", "-svg", plot}, io.Discard), "there is no case shipped")
}
