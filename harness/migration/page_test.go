// Package migration holds docs/migration and docs/comparison.md against the programs that they speak of. The configurations come from the
// pages, and run side by side: Traefik's own middlewares, nginx and the plugin, under the same load. The figures in the pages must be
// those that are measured.
package migration

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

const root = "../.."

// block is a part of a configuration.
type block = map[string]any

// page is the text of a document, or of a section of one.
type page string

func readPage(t *testing.T, name string) page {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, name))
	require.NoError(t, err)
	return page(strings.ReplaceAll(string(content), "\r\n", "\n"))
}

// section returns the text below a heading, up to the next heading of the same level or a higher one.
func (p page) section(t *testing.T, heading string) page {
	t.Helper()
	level := len(heading) - len(strings.TrimLeft(heading, "#"))
	_, text, found := strings.Cut("\n"+string(p), "\n"+heading+"\n")
	require.True(t, found, "no heading %q", heading)
	if end := regexp.MustCompile(`(?m)^#{1,` + strconv.Itoa(level) + `} `).FindStringIndex(text); end != nil {
		text = text[:end[0]]
	}
	return page(text)
}

// code returns the only fenced block of a language.
func (p page) code(t *testing.T, language string) string {
	t.Helper()
	found := regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(string(p), -1)
	require.Len(t, found, 1, "blocks of %s", language)
	return found[0][1]
}

// middleware returns the configuration of the only middleware in the section's YAML block.
func (p page) middleware(t *testing.T) block {
	t.Helper()
	var file struct {
		HTTP struct{ Middlewares map[string]block }
	}
	require.NoError(t, yaml.Unmarshal([]byte(p.code(t, "yaml")), &file))
	require.Len(t, file.HTTP.Middlewares, 1)
	for _, middleware := range file.HTTP.Middlewares {
		return middleware
	}
	return nil
}

// table returns the cells of the section's only table, by the first cell of each row, and then by the heading of the column.
func (p page) table(t *testing.T) map[string]map[string]string {
	t.Helper()
	var lines [][]string
	for _, line := range strings.Split(string(p), "\n") {
		if strings.HasPrefix(line, "| ") {
			lines = append(lines, strings.Split(strings.Trim(line, "| "), " | "))
		}
	}
	require.NotEmpty(t, lines)
	rows := map[string]map[string]string{}
	for _, cells := range lines[1:] {
		require.NotContains(t, rows, cells[0], "a row twice")
		require.Len(t, cells, len(lines[0]), "cells of the row %q", cells[0])
		rows[cells[0]] = map[string]string{}
		for i, heading := range lines[0] {
			rows[cells[0]][heading] = cells[i]
		}
	}
	return rows
}

// none is a cell of a table that has no figure, because the load does not apply.
const none = "–"

var figure = regexp.MustCompile(`^(~?)([\d.]+)(?: to ([\d.]+))?(?: ms| s)?$`)

// matches reports whether a cell states what was measured: exactly, as a range, or with a ~ give or take a third.
func matches(t *testing.T, cell string, measured float64) bool {
	t.Helper()
	parts := figure.FindStringSubmatch(cell)
	require.NotNil(t, parts, "the cell %q is no figure", cell)
	least, most := number(t, parts[2]), number(t, parts[2])
	if parts[3] != "" {
		most = number(t, parts[3])
	}
	if parts[1] != "" {
		least, most = least*2/3, most*4/3
	}
	return least <= measured && measured <= most
}

func number(t *testing.T, text string) float64 {
	t.Helper()
	n, err := strconv.ParseFloat(text, 64)
	require.NoError(t, err)
	return n
}

func TestPage_aWrongFigureIsSeen(t *testing.T) {
	for _, step := range []struct {
		cell     string
		measured float64
		matches  bool
	}{
		{"50", 50, true},
		{"50", 51, false},
		{"~30", 40, true},
		{"~30", 20, true},
		{"~30", 41, false},
		{"~30", 19, false},
		{"~12 s", 12.9, true},
		{"0", 0, true},
		{"0", 1, false},
		{"20 to 39", 20, true},
		{"20 to 39", 39, true},
		{"20 to 39", 40, false},
	} {
		require.Equal(t, step.matches, matches(t, step.cell, step.measured), "%s for %g", step.cell, step.measured)
	}
}
