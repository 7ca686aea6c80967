package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// load is the summary that wrk prints.
type load struct {
	Requests int     `json:"requests"`
	Micros   float64 `json:"micros"`
	Refused  int     `json:"refused"`
	Broken   int     `json:"broken"`
	Distinct int     `json:"distinct"`
	P50      float64 `json:"p50"`
	P99      float64 `json:"p99"`
}

// load runs one wrk for each gateway and divides the connections among them. The same seed gives the same sequence of clients.
func (t *testbed) load(w workload, c contender, duration time.Duration, seed int) ([]load, error) {
	file := filepath.Join(t.dir, w.Name+".lua")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(script, "CLIENTS", w.clients.lua)), 0o644); err != nil {
		return nil, err
	}
	loads := make([]load, len(t.webAddresses))
	results := make(chan error)
	for i, web := range t.webAddresses {
		go func() {
			command := exec.Command("wrk", "-t1", "-c", strconv.Itoa(w.Connections/len(t.webAddresses)),
				"-d", fmt.Sprintf("%ds", int(duration.Seconds())), "-s", file, "http://"+web[c]+"/ok", strconv.Itoa(seed*10+i))
			out, err := command.Output()
			if err == nil {
				lines := strings.Split(strings.TrimSpace(string(out)), "\n")
				err = json.Unmarshal([]byte(lines[len(lines)-1]), &loads[i])
			}
			results <- err
		}()
	}
	var failed error
	for range t.webAddresses {
		if err := <-results; err != nil {
			failed = errors.Join(failed, fmt.Errorf("wrk: %w", err))
		}
	}
	time.Sleep(50 * time.Millisecond) // for the requests that wrk abandoned at its end
	return loads, failed
}
