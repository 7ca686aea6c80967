package readme

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gomodule/redigo/redis"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// redisCommands: the table has each command that the plugin sends, or that its scripts call, and no other, with versions that Redis's own
// documentation names.
func redisCommands(t *testing.T, all documents) (problems []string) {
	told := map[string]bool{}
	history := historyOf(t)
	for _, row := range rowsOf(section(all[operations], "Versions and commands")) {
		names, versions := regexp.MustCompile("`([A-Z][A-Z -]+)`").FindAllStringSubmatch(strings.Split(row[0], " with ")[0], -1), row[1]
		for _, name := range names {
			told[name[1]] = true
			known := history[strings.ToLower(strings.ReplaceAll(name[1], " ", "|"))]
			numbers := regexp.MustCompile(`\d+\.\d+(\.\d+)?`).FindAllString(versions, -1)
			if len(numbers) == 0 {
				problems = append(problems, name[1]+": since when?")
			}
			for i, number := range numbers {
				if strings.Count(number, ".") == 1 {
					number += ".0"
				}
				isFirst := i == 0 && !strings.Contains(row[0], " with ")
				if !slices.Contains(known, number) || isFirst && known[0] != number {
					problems = append(problems, fmt.Sprintf("%s: since %s, and Redis says %v", name[1], number, known))
				}
			}
		}
	}
	sent := sentCommands(t)
	for name := range sent {
		if !told[name] {
			problems = append(problems, name+": not in the table of commands")
		}
	}
	for name := range told {
		if !sent[name] {
			problems = append(problems, name+": nothing sends it")
		}
	}
	return sorted(problems)
}

// rowsOf returns the cells of each row of the tables in a text.
func rowsOf(text string) (rows [][]string) {
	for line := range strings.Lines(text) {
		if inside, isRow := strings.CutPrefix(strings.TrimSpace(line), "| "); isRow {
			rows = append(rows, strings.Split(strings.TrimSuffix(inside, " |"), " | "))
		}
	}
	return rows
}

// sentCommands finds the commands in the plugin's sources: what scripts call, and what the store sends. A word that follows one is part of
// its name.
func sentCommands(t *testing.T) map[string]bool {
	t.Helper()
	patterns := map[string]*regexp.Regexp{
		"": regexp.MustCompile(`redis\.p?call\('([A-Z]+)'`),
		"internal/store/": regexp.MustCompile(`(?:redigo\.Send|\bcommand)\("([A-Z]+)"|\[\]string\{"([A-Z]+)", (?:"([A-Z-]+)"|[a-z]+)|` +
			`Word\("([A-Z]+)"\)(?:\+newline\+Word\("([A-Z]+)"\))?`),
	}
	sent := map[string]bool{}
	for _, name := range filesOf(t, ".go") {
		isPlugin := !strings.Contains(name, "/") || strings.HasPrefix(name, "ratelimit/") || strings.HasPrefix(name, "breaker/") ||
			strings.HasPrefix(name, "internal/store/")
		if !isPlugin || strings.HasSuffix(name, "_test.go") {
			continue
		}
		for folder, pattern := range patterns {
			if !strings.HasPrefix(name, folder) {
				continue
			}
			for _, found := range pattern.FindAllStringSubmatch(file(t, name), -1) {
				words := slices.DeleteFunc(found[1:], func(word string) bool { return word == "" })
				sent[strings.Join(words, " ")] = true
			}
		}
	}
	require.Greater(t, len(sent), 12)
	return sent
}

// historyOf returns, for each command of Redis and of a sentinel, the version that brought it, and those that changed it.
func historyOf(t *testing.T) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	for _, server := range []*redistest.Server{redistest.Start(t), redistest.StartSentinel(t, "")} {
		reply := server.Do("COMMAND", "DOCS")
		maps.Copy(all, readDocs(t, reply))
	}
	require.Greater(t, len(all), 200)
	return all
}

func readDocs(t *testing.T, reply any) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	values, err := redis.Values(reply, nil)
	require.NoError(t, err)
	for i := 0; i+1 < len(values); i += 2 {
		name, err := redis.String(values[i], nil)
		require.NoError(t, err)
		fields, err := redis.Values(values[i+1], nil)
		require.NoError(t, err)
		for j := 0; j+1 < len(fields); j += 2 {
			switch field, _ := redis.String(fields[j], nil); field {
			case "since", "deprecated_since":
				version, _ := redis.String(fields[j+1], nil)
				all[name] = append(all[name], version)
			case "history":
				changes, _ := redis.Values(fields[j+1], nil)
				for _, change := range changes {
					pair, _ := redis.Strings(change, nil)
					all[name] = append(all[name], pair[0])
				}
			case "subcommands":
				maps.Copy(all, readDocs(t, fields[j+1]))
			}
		}
	}
	return all
}
