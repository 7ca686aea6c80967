package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// configuration is what Traefik runs with in one case of the benchmark.
type configuration struct {
	Name       string `json:"name"`
	Title      string `json:"title"`
	Metrics    bool   `json:"metrics"`
	AccessLog  bool   `json:"accessLog"`
	GOGC       int    `json:"gogc"`
	GOMEMLIMIT string `json:"gomemlimit"`
	RedisDelay string `json:"redisDelay"` // added to each round trip
}

// configurations are the cases of a full run, in its order. The first is the main case: the one that a user gets without any settings
// of Traefik's own.
var configurations = []configuration{
	{Name: "default", Title: "default Traefik", GOGC: 100, GOMEMLIMIT: "off", RedisDelay: "0s"},
	{Name: "metrics", Title: "metrics only", Metrics: true, GOGC: 400, GOMEMLIMIT: "512MiB", RedisDelay: "0s"},
	{Name: "shipped", Title: "shipped configuration", Metrics: true, AccessLog: true, GOGC: 400, GOMEMLIMIT: "512MiB", RedisDelay: "0s"},
}

// String describes the configuration in words.
func (c configuration) String() string {
	text := fmt.Sprintf("%s (%s, GOGC=%d, ", c.Title, c.observability(), c.GOGC)
	if c.GOMEMLIMIT == "off" {
		text += "no GOMEMLIMIT"
	} else {
		text += "GOMEMLIMIT=" + c.GOMEMLIMIT
	}
	if c.RedisDelay != "0s" {
		text += ", " + c.RedisDelay + " added to each round trip to Redis"
	}
	return text + ")"
}

func (c configuration) observability() string {
	switch {
	case c.Metrics && c.AccessLog:
		return "metrics and access log"
	case c.Metrics:
		return "metrics without access log"
	case c.AccessLog:
		return "access log without metrics"
	}
	return "neither metrics nor access log"
}

// apply changes the shipped static configuration into this one.
func (c configuration) apply(static block) {
	if !c.Metrics {
		delete(static, "metrics")
	}
	if !c.AccessLog {
		delete(static, "accessLog")
	}
}

// environment returns the variables that Traefik is started with. Both are always set, so that the environment of the benchmark does
// not change a case.
func (c configuration) environment() []string {
	return []string{fmt.Sprint("GOGC=", c.GOGC), "GOMEMLIMIT=" + c.GOMEMLIMIT}
}

// isMain reports whether this is the main case, unchanged by options.
func (c configuration) isMain() bool { return c == configurations[0] }

// chooseConfigurations returns the named ones in the order of the names; no names mean all. Each is multiplied by the values of GOGC and
// the delays of Redis, if there are any. All lists are separated by commas.
func chooseConfigurations(names, gogc, delays string) ([]configuration, error) {
	chosen := configurations
	if names != "" {
		chosen = nil
		for _, name := range strings.Split(names, ",") {
			i := slices.IndexFunc(configurations, func(c configuration) bool { return c.Name == name })
			if i < 0 {
				return nil, fmt.Errorf("-case: there is no case %q; use %s", name, strings.Join(caseNames(), ", "))
			}
			chosen = append(chosen, configurations[i])
		}
	}
	chosen, err := override(chosen, gogc, func(c *configuration, value string) error {
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 {
			return fmt.Errorf("-gogc: %q is not a percentage; use a number such as 100", value)
		}
		if n != c.GOGC {
			c.GOGC = n
			c.Name += fmt.Sprint("-gogc", n)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return override(chosen, delays, func(c *configuration, value string) error {
		added, err := time.ParseDuration(value)
		if err != nil || added < 0 {
			return fmt.Errorf("-redis-delay: %q is not a duration; use one such as 5ms", value)
		}
		if added > 0 {
			c.RedisDelay = added.String()
			c.Name += fmt.Sprint("-redis", added)
		}
		return nil
	})
}

// override returns each configuration once for each value of the list, changed by set.
func override(all []configuration, list string, set func(*configuration, string) error) ([]configuration, error) {
	if list == "" {
		return all, nil
	}
	var changed []configuration
	for _, c := range all {
		for _, value := range strings.Split(list, ",") {
			one := c
			if err := set(&one, value); err != nil {
				return nil, err
			}
			changed = append(changed, one)
		}
	}
	return changed, nil
}

func caseNames() []string {
	var names []string
	for _, c := range configurations {
		names = append(names, c.Name)
	}
	return names
}

// describe says which case is which, one per line.
func describe(all []configuration) []string {
	var lines []string
	for _, c := range all {
		line := c.Name + ": " + c.String()
		if c.isMain() {
			line = c.Name + ", the main case: " + c.String()
		}
		lines = append(lines, line)
	}
	return lines
}
