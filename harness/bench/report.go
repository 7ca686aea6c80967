package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/gomodule/redigo/redis"
	"golang.org/x/sys/unix"
)

// report is a whole run.
type report struct {
	Configurations []string   `json:"configurations"` // which case is which, in words
	Date           time.Time  `json:"date"`
	Conditions     conditions `json:"conditions"`
	Cases          []*oneCase `json:"cases"`
}

// oneCase holds all workloads measured in one configuration.
type oneCase struct {
	Configuration configuration `json:"configuration"`
	Results       []*result     `json:"results"`
}

// conditions are what the figures depend on besides the configuration.
type conditions struct {
	CPU     string  `json:"cpu"`
	Cores   int     `json:"cores"`
	Kernel  string  `json:"kernel"`
	Traefik string  `json:"traefik"`
	Redis   string  `json:"redis"`
	Load    string  `json:"load"`
	Rounds  int     `json:"rounds"`
	Seconds float64 `json:"seconds"` // a sample
}

func observe(root string, rounds int, duration time.Duration) (conditions, error) {
	c := conditions{CPU: cpuModel(), Cores: runtime.NumCPU(), Rounds: rounds, Seconds: duration.Seconds()}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return c, err
	}
	c.Kernel = unix.ByteSliceToString(name.Release[:])
	version, err := exec.Command(filepath.Join(root, "dist", "bin", "traefik"), "version").Output()
	if err != nil {
		return c, err
	}
	if m := regexp.MustCompile(`Go version:\s+(\S+)`).FindSubmatch(version); m != nil {
		c.Traefik = "v3.7.9, " + string(m[1])
	}
	// wrk prints its version and then fails, because it has no URL.
	text, _ := exec.Command("wrk", "-v").CombinedOutput()
	c.Load = strings.Join(strings.Fields(string(text))[:2], " ") + ", one thread a gateway"
	return c, nil
}

func cpuModel() string {
	file, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if name, value, _ := strings.Cut(lines.Text(), ":"); strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// redisVersion returns the version of the Redis in use.
func (t *testbed) redisVersion() (string, error) {
	info, err := redis.String(t.do("INFO", "server"))
	if err != nil {
		return "", err
	}
	m := regexp.MustCompile(`redis_version:(\S+)`).FindStringSubmatch(info)
	if m == nil {
		return "unknown", nil
	}
	return m[1], nil
}

// summary lists the bounds that are not met, if any bound was checked.
func (r *report) summary() string {
	var all, met int
	var b strings.Builder
	for _, c := range r.Cases {
		for _, result := range c.Results {
			for _, bound := range result.Bounds {
				all++
				if bound.Met {
					met++
					continue
				}
				fmt.Fprintf(&b, "  %s, %s: %s\n", c.Configuration.Name, result.Workload.Name, bound)
			}
		}
	}
	if all == 0 {
		return ""
	}
	return fmt.Sprintf("\n%d of %d bounds met\n%s", met, all, b.String())
}

// find returns the case with the name, or nil.
func (r *report) find(name string) *oneCase {
	for _, c := range r.Cases {
		if c.Configuration.Name == name {
			return c
		}
	}
	return nil
}

func (r *report) write(path string) error {
	if path == "" {
		return nil
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

func (r *report) read(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, r); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if len(r.Cases) == 0 {
		return fmt.Errorf("%s has no cases", path)
	}
	return nil
}
