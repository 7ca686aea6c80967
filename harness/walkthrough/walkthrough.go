// Package walkthrough reads the README of an example: the commands that it tells to type, and what it says that they print.
package walkthrough

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// Step is one command and what it prints, as a README shows them: in a block of the language console, after "$ ".
type Step struct {
	Line    int // of the README
	Command string
	Want    string // [...] is any text within a line, and any lines where it is a line
}

// Read returns the steps of a README. The first one starts the example, and the last one stops it.
func Read(path string) ([]Step, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	steps := parse(string(content))
	switch {
	case len(steps) < 3:
		return nil, fmt.Errorf("%s: %d commands in console blocks; write at least 3: start, try, stop", path, len(steps))
	case !Starts(steps[0].Command):
		return nil, fmt.Errorf("%s: %q does not start the example", path, steps[0].Command)
	case !Stops(steps[len(steps)-1].Command):
		return nil, fmt.Errorf("%s: %q does not stop the example", path, steps[len(steps)-1].Command)
	}
	return steps, nil
}

// Section returns the steps of a part of a README: from its heading to the next one.
func Section(path, heading string) ([]Step, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	within, fenced := false, false
	lines := strings.Split(string(content), "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, "```") {
			fenced = !fenced
		}
		if !fenced && strings.HasPrefix(line, "#") {
			within = line == heading
		}
		if !within {
			lines[i] = "" // the numbers of the others stay
		}
	}
	steps := parse(strings.Join(lines, "\n"))
	if len(steps) == 0 {
		return nil, fmt.Errorf("%s: no commands in console blocks below %q", path, heading)
	}
	return steps, nil
}

func parse(readme string) []Step {
	var steps []Step
	inside := false
	for i, line := range strings.Split(readme, "\n") {
		command, isCommand := strings.CutPrefix(line, "$ ")
		switch {
		case strings.HasPrefix(line, "```"):
			inside = line == "```console"
		case !inside:
		case isCommand:
			steps = append(steps, Step{Line: i + 1, Command: command})
		case len(steps) > 0:
			steps[len(steps)-1].Want += line + "\n"
		}
	}
	return steps
}

// Starts reports whether a command starts an example.
func Starts(command string) bool {
	return command == "./start.sh" || command == "docker compose up --build --detach --wait" || strings.HasPrefix(command, "kubectl apply -f ")
}

// Stops reports whether a command stops an example.
func Stops(command string) bool {
	return command == "docker compose down" || strings.HasPrefix(command, "kubectl delete ")
}

// Match returns an error if a command has printed something else than its step says. Retry-After may be some seconds less, on a
// machine that is busy.
func (s Step) Match(got string) error {
	got = strings.ReplaceAll(got, "\r", "")
	if s.pattern().MatchString(got) {
		return nil
	}
	return fmt.Errorf("line %d: %s\nthe README says:\n%s\nprinted was:\n%s", s.Line, s.Command, s.Want, got)
}

var retryAfter = regexp.MustCompile(`^Retry-After: (\d+)$`)

func (s Step) pattern() *regexp.Regexp {
	const anything, busy = "[...]", 15 // seconds
	var pattern strings.Builder
	for line := range strings.Lines(s.Want) {
		line = strings.TrimSuffix(line, "\n")
		found := retryAfter.FindStringSubmatch(line)
		switch {
		case line == anything:
			pattern.WriteString(`(?:.*\n)*`)
		case found != nil:
			seconds, _ := strconv.Atoi(found[1])
			var allowed []string
			for n := seconds; n > max(0, seconds-busy); n-- {
				allowed = append(allowed, strconv.Itoa(n))
			}
			pattern.WriteString(`Retry-After: (?:` + strings.Join(allowed, "|") + `)\n`)
		default:
			var parts []string
			for _, part := range strings.Split(line, anything) {
				parts = append(parts, regexp.QuoteMeta(part))
			}
			pattern.WriteString(strings.Join(parts, ".*") + `\n`)
		}
	}
	return regexp.MustCompile(`\A` + strings.TrimSuffix(pattern.String(), `\n`) + `\n?\z`)
}

// Examples are the folders of the examples, by what starts them.
type Examples struct {
	Compose   []string // with a Compose file
	Manifests []string // with Kubernetes manifests
	Helm      []string // with values of a chart
}

// Folders returns the examples below the root of the project. A folder that nothing starts, or without a README that the index
// names, is an error.
func Folders(root string) (found Examples, err error) {
	index, err := os.ReadFile(filepath.Join(root, "examples", "README.md"))
	if err != nil {
		return Examples{}, err
	}
	entries, err := os.ReadDir(filepath.Join(root, "examples"))
	if err != nil {
		return Examples{}, err
	}
	var problems []error
	for _, entry := range entries {
		if !entry.IsDir() {
			continue
		}
		folder := filepath.Join(root, "examples", entry.Name())
		if !strings.Contains(string(index), "("+entry.Name()+")") {
			problems = append(problems, fmt.Errorf("examples/README.md does not link to %s", entry.Name()))
		}
		if _, err := Read(filepath.Join(folder, "README.md")); err != nil {
			problems = append(problems, err)
		}
		switch {
		case has(folder, "docker-compose.yml"):
			found.Compose = append(found.Compose, folder)
		case has(folder, "values.yaml"):
			found.Helm = append(found.Helm, folder)
		case has(folder, "*.yaml"):
			found.Manifests = append(found.Manifests, folder)
		default:
			problems = append(problems, fmt.Errorf("%s has neither docker-compose.yml nor Kubernetes manifests nor values.yaml: no test starts it", folder))
		}
	}
	return found, errors.Join(problems...)
}

func has(folder, pattern string) bool {
	files, _ := filepath.Glob(filepath.Join(folder, pattern))
	return len(files) > 0
}
