package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

const projectRoot = "../.."

func readYAML(t *testing.T, path string) block {
	content, err := os.ReadFile(filepath.Join(projectRoot, path))
	require.NoError(t, err)
	var parsed block
	require.NoError(t, yaml.Unmarshal(content, &parsed))
	return parsed
}

func TestConfigurations_startTraefikAsTheySay(t *testing.T) {
	require.Len(t, configurations, 3)
	for i, row := range []struct {
		name        string
		static      []string // keys of the static configuration that the case may drop, and keeps
		environment []string
		words       string
	}{
		{
			"default", nil, []string{"GOGC=100", "GOMEMLIMIT=off"},
			"default Traefik (neither metrics nor access log, GOGC=100, no GOMEMLIMIT)",
		},
		{
			"metrics", []string{"metrics"}, []string{"GOGC=400", "GOMEMLIMIT=512MiB"},
			"metrics only (metrics without access log, GOGC=400, GOMEMLIMIT=512MiB)",
		},
		{
			"shipped", []string{"metrics", "accessLog"}, []string{"GOGC=400", "GOMEMLIMIT=512MiB"},
			"shipped configuration (metrics and access log, GOGC=400, GOMEMLIMIT=512MiB)",
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := configurations[i]
			require.Equal(t, row.name, c.Name)
			require.Equal(t, row.words, c.String())
			require.Equal(t, i == 0, c.isMain())

			shipped, static := readYAML(t, "traefik/traefik.yml"), readYAML(t, "traefik/traefik.yml")
			traefik := newTraefik(c, map[contender]string{ours: "127.0.0.1:1", builtinOpen: "127.0.0.1:2"})
			traefik.Change(static)
			require.Equal(t, row.environment, traefik.Env)
			require.Equal(t, "127.0.0.1:1", static["entryPoints"].(block)["ours"].(block)["address"])
			require.Equal(t, "127.0.0.1:2", static["entryPoints"].(block)["built-in-breaker"].(block)["address"])
			require.NotContains(t, static["entryPoints"], "web")

			var kept []string
			for _, key := range []string{"metrics", "accessLog"} {
				require.Contains(t, shipped, key)
				if _, ok := static[key]; ok {
					require.Equal(t, shipped[key], static[key])
					kept = append(kept, key)
				}
			}
			require.Equal(t, row.static, kept)
			for _, m := range []block{shipped, static} { // everything else is as shipped, but for the routes of the benchmark
				delete(m, "metrics")
				delete(m, "accessLog")
				delete(m, "entryPoints")
				delete(m["experimental"].(block)["localPlugins"].(block), "noop")
			}
			require.Equal(t, shipped, static)
		})
	}
}

// TestConfigurations_shippedIsWhatComposeShips compares the garbage collector's settings; the static file is read at each start.
func TestConfigurations_shippedIsWhatComposeShips(t *testing.T) {
	services := readYAML(t, "docker-compose.yml")["services"].(block)
	found := 0
	for _, service := range services {
		environment, _ := service.(block)["environment"].(block)
		if gogc, ok := environment["GOGC"]; ok {
			found++
			require.Equal(t, []string{"GOGC=" + gogc.(string), "GOMEMLIMIT=" + environment["GOMEMLIMIT"].(string)},
				configurations[2].environment())
		}
	}
	require.Equal(t, 1, found)
}

func TestChooseConfigurations(t *testing.T) {
	for _, row := range []struct {
		names, gogc, delays string
		chosen              []string
		fails               string
	}{
		{chosen: []string{"default", "metrics", "shipped"}, delays: "0s"},
		{names: "default", chosen: []string{"default"}},
		{names: "shipped,default", chosen: []string{"shipped", "default"}},
		{names: "default", gogc: "100,400", chosen: []string{"default", "default-gogc400"}},
		{names: "shipped", delays: "0s,5ms", chosen: []string{"shipped", "shipped-redis5ms"}},
		{names: "metrics", gogc: "100", delays: "1ms", chosen: []string{"metrics-gogc100-redis1ms"}},
		{names: "bare", fails: `there is no case "bare"; use default, metrics, shipped`},
		{gogc: "off", fails: `-gogc: "off" is not a percentage`},
		{delays: "5", fails: `-redis-delay: "5" is not a duration`},
	} {
		chosen, err := chooseConfigurations(row.names, row.gogc, row.delays)
		if row.fails != "" {
			require.ErrorContains(t, err, row.fails)
			continue
		}
		require.NoError(t, err)
		var names []string
		for _, c := range chosen {
			names = append(names, c.Name)
			require.Equal(t, c.Name == "default", c.isMain(), c.Name)
		}
		require.Equal(t, row.chosen, names)
	}
}

func TestChooseConfigurations_saysWhatWasChanged(t *testing.T) {
	chosen, err := chooseConfigurations("default", "400", "5ms")
	require.NoError(t, err)
	require.Equal(t, []string{"GOGC=400", "GOMEMLIMIT=off"}, chosen[0].environment())
	require.Equal(t, []string{"default-gogc400-redis5ms: default Traefik (neither metrics nor access log, GOGC=400, no GOMEMLIMIT, " +
		"5ms added to each round trip to Redis)"}, describe(chosen))
	require.Equal(t, "default, the main case: "+configurations[0].String(), describe(configurations)[0])
}
