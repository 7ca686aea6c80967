package main

import (
	"fmt"
	"net/url"
	"regexp"
	"sort"
	"strconv"
	"strings"
)

// checkVariables checks those variables that no dynamic file gives to the plugin: ports, images and numbers of seconds.
func checkVariables(environment []string) (problems []string) {
	for _, line := range environment {
		name, value, _ := strings.Cut(line, "=")
		if value == "" {
			continue // as if it were not set
		}
		switch {
		case name == "PORT" || name == "DASHBOARD_PORT":
			if !isPort(value) {
				problems = append(problems, fmt.Sprintf("%s: %q is not a port; write a number from 1 to 65535", name, value))
			}
		case isSeconds(name):
			if !decimal.MatchString(value) {
				problems = append(problems, fmt.Sprintf("%s: %q is not a number of seconds; %s", name, value, secondsAdvice(value)))
			}
		case isImage(name):
			if !reference.MatchString(value) {
				problems = append(problems, fmt.Sprintf("%s: %q is not the name of an image; write one such as registry.example.com/name:1.2.3", name, value))
			}
		}
	}
	sort.Strings(problems)
	return problems
}

var (
	decimal   = regexp.MustCompile(`^[0-9]+(\.[0-9]+)?$`)
	reference = regexp.MustCompile(`^([a-zA-Z0-9.-]+(:[0-9]+)?/)?[a-z0-9]+(?:[._/-]+[a-z0-9]+)*(:[\w][\w.-]{0,127})?(@sha256:[0-9a-f]{64})?$`)
)

func isPort(text string) bool {
	number, err := strconv.Atoi(text)
	return err == nil && number >= 1 && number <= 65535
}

func isSeconds(name string) bool { return strings.HasSuffix(name, "_SECONDS") }

func isImage(name string) bool {
	return name == "GATEWAY_IMAGE" || name == "UPSTREAM_IMAGE" || name == "REDIS_IMAGE"
}

// secondsAdvice suggests the number alone where there is a unit.
func secondsAdvice(value string) string {
	if number := strings.TrimRight(strings.TrimSpace(value), "s "); decimal.MatchString(number) {
		return "write " + number
	}
	return "write a number without a unit, such as 30"
}

// urlProblem says what is wrong with the URL of a service, or nothing.
func urlProblem(text string) string {
	shown := fmt.Sprintf("%q", text)
	if strings.Contains(text, "@") {
		shown = "the URL (it is not shown, as a password may be in it)"
	}
	parsed, err := url.Parse(text)
	switch {
	case !strings.Contains(text, "://"):
		if strings.Contains(text, "@") || !hostLike.MatchString(text) {
			return shown + " is not a URL; write one such as http://shop:8080"
		}
		return fmt.Sprintf("%s has no scheme; write http://%s", shown, text)
	case err != nil:
		return shown + " is not a URL; write one such as http://shop:8080"
	case parsed.Scheme != "http" && parsed.Scheme != "https" && parsed.Scheme != "h2c":
		return fmt.Sprintf("%s has the scheme %s; write http:// or https://", shown, parsed.Scheme)
	case parsed.Hostname() == "":
		return shown + " has no host; write one such as http://shop:8080"
	case parsed.Port() != "" && !isPort(parsed.Port()):
		return fmt.Sprintf("%s has the port %s; write a number from 1 to 65535", shown, parsed.Port())
	case parsed.RawQuery != "" || parsed.Fragment != "":
		return shown + " has a query or a fragment, which would not be sent; leave it out"
	}
	return ""
}

var hostLike = regexp.MustCompile(`^[\w.:\[\]-]+(/\S*)?$`)
