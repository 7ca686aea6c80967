package compose

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
)

// rememberNetwork returns a function that undoes the changes to this machine's network that an engine leaves behind when it
// ends: its bridge, its rules, and the forwarding of packets, which it allows for its containers only. The function returns
// what it could not undo.
func rememberNetwork() (restore func() error) {
	const forwarding = "/proc/sys/net/ipv4/ip_forward"
	forwards, forwardingErr := os.ReadFile(forwarding)
	_, err := os.Stat("/sys/class/net/docker0")
	hadBridge := err == nil
	var undo []func() error
	for _, command := range []string{"iptables", "ip6tables"} {
		for _, table := range []string{"raw", "filter", "nat"} {
			t := rules{command, table}
			before, err := t.list()
			if err == nil && !engines.MatchString(before) {
				undo = append(undo, func() error { return t.clear(before) })
			}
		}
	}
	return func() error {
		var left []error
		for _, f := range undo {
			left = append(left, f())
		}
		if !hadBridge {
			exec.Command("ip", "link", "delete", "docker0").Run()
		}
		if forwardingErr == nil {
			left = append(left, os.WriteFile(forwarding, forwards, 0o644))
		}
		return errors.Join(left...)
	}
}

// engines matches what belongs to an engine in a list of rules.
var engines = regexp.MustCompile(`\b(DOCKER|docker0)\b`)

// rules is one table of a firewall.
type rules struct{ command, table string }

func (r rules) run(args ...string) ([]byte, error) {
	return exec.Command(r.command, append([]string{"--wait", "--table", r.table}, args...)...).Output()
}

func (r rules) list() (string, error) {
	out, err := r.run("--list-rules")
	return string(out), err
}

// clear removes the engine's rules and chains, and lets packets through again if that was so before.
func (r rules) clear(before string) error {
	now, err := r.list()
	if err != nil {
		return err
	}
	lines := strings.Split(now, "\n")
	for _, line := range lines {
		if rule, found := strings.CutPrefix(line, "-A "); found && engines.MatchString(line) {
			r.run(append([]string{"--delete"}, strings.Fields(rule)...)...)
		}
	}
	for _, line := range lines {
		if chain, found := strings.CutPrefix(line, "-N "); found && engines.MatchString(line) {
			r.run("--delete-chain", chain)
		}
	}
	if strings.Contains(before, "-P FORWARD ACCEPT") {
		r.run("--policy", "FORWARD", "ACCEPT")
	}
	after, err := r.list()
	if err == nil && engines.MatchString(after) {
		err = fmt.Errorf("%s: the engine's rules stay in the table %s:\n%s", r.command, r.table, after)
	}
	return err
}
