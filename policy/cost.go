package policy

import (
	"net/http"
	"strconv"
	"strings"
)

// cost is a compiled CostRule.
type cost struct {
	header  string
	max     int64
	methods map[string]int64
	paths   []pathCost
}

type pathCost struct {
	pattern *patterns
	cost    int64
}

func compileCost(rule *CostRule) *cost {
	c := &cost{header: http.CanonicalHeaderKey(rule.Header), max: rule.Max, methods: rule.Methods}
	for _, one := range rule.Paths {
		c.paths = append(c.paths, pathCost{pattern: patternsOf([]string{one.Pattern}, false), cost: one.Cost})
	}
	return c
}

// of returns the cost of a request: by its header, else by its path, else by its method. A header that is not a whole number from 1 to max
// costs 1.
func (c *cost) of(r *http.Request) int64 {
	if c.header != "" {
		if lines := r.Header[c.header]; len(lines) > 0 {
			return c.inHeader(lines[len(lines)-1])
		}
	}
	for _, one := range c.paths {
		if one.pattern.match(r.URL.Path) {
			return one.cost
		}
	}
	if n := c.methods[r.Method]; n > 0 {
		return n
	}
	return 1
}

func (c *cost) inHeader(text string) int64 {
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil || n < 1 || n > c.max {
		return 1
	}
	return n
}

// Statuses are ranges of HTTP statuses.
type Statuses struct {
	Ranges []StatusRange
}

// StatusRange is the statuses from First to Last.
type StatusRange struct{ First, Last int }

// Empty reports whether there are no statuses.
func (s Statuses) Empty() bool { return len(s.Ranges) == 0 }

// Contain reports whether a status is among them.
func (s Statuses) Contain(status int) bool {
	for _, one := range s.Ranges {
		if status >= one.First && status <= one.Last {
			return true
		}
	}
	return false
}
