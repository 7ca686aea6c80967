package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"github.com/resilient-gateway/resilience/harness/gateway"
)

const (
	defaultPort    = 5000
	defaultAPIPort = 8080
	mostGateways   = 10
)

// settings of a run, from the environment.
type settings struct {
	number       int // of gateways
	gateways     []ports
	redis        string // host and port
	ownRedis     bool
	embedded     bool
	password, db string // of the Redis that exists already
	upstream     string // host and port of the dummy one; empty where upstreamURL is another's
	upstreamURL  string
	variables    []variable
	collector    []variable
}

// ports of a gateway: the public one, and that of its API.
type ports struct {
	port, api int
}

func (p ports) web() string        { return gateway.Loopback(p.port) }
func (p ports) apiAddress() string { return gateway.Loopback(p.api) }

// variable is one of the middleware's settings.
type variable struct {
	name, value string
}

// collector is how the image, too, has Go collect garbage.
var collector = []variable{{"GOGC", "400"}, {"GOMEMLIMIT", "512MiB"}}

// reader reads the environment and collects what is wrong with it.
type reader struct {
	getenv   func(string) string
	problems []string
}

func (r *reader) value(name, byDefault string) string {
	if text := r.getenv(name); text != "" {
		return text
	}
	return byDefault
}

// count reads a whole number.
func (r *reader) count(name string, byDefault, lowest, highest int) int {
	text := r.value(name, strconv.Itoa(byDefault))
	n, err := strconv.Atoi(text)
	if err != nil || n < lowest || n > highest {
		r.invalid(name, text, fmt.Sprintf("a whole number from %d to %d, such as %d", lowest, highest, byDefault))
	}
	return n
}

// invalid adds a value that is not what it should be.
func (r *reader) invalid(name, value, want string) {
	r.problems = append(r.problems, fmt.Sprintf("%s: %q is not %s", name, value, want))
}

// read returns the settings, or all that is wrong with them.
func read(getenv func(string) string) (*settings, error) {
	r := &reader{getenv: getenv}
	s := &settings{
		number:   r.count("GATEWAYS", 1, 1, mostGateways),
		gateways: []ports{{r.count("PORT", defaultPort, 1, 65535), r.count("API_PORT", defaultAPIPort, 1, 65535)}},
	}
	r.redis(s)
	s.upstreamURL = r.value("UPSTREAM_URL", "")
	if problem := checkUpstream(s.upstreamURL); problem != "" {
		r.problems = append(r.problems, "UPSTREAM_URL: "+problem)
	}
	for _, p := range parameters {
		s.variables = append(s.variables, variable{p.name, r.value(p.name, p.byDefault)})
	}
	r.problems = append(r.problems, checkVariables(s.variables)...)
	for _, v := range collector {
		s.collector = append(s.collector, variable{v.name, r.value(v.name, v.value)})
	}
	return s, join(r.problems)
}

// join returns the problems as one error, each in a line, or nil.
func join(problems []string) error {
	switch len(problems) {
	case 0:
		return nil
	case 1:
		return errors.New(problems[0])
	}
	return fmt.Errorf("%d problems\n  %s", len(problems), strings.Join(problems, "\n  "))
}

var hostName = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)

// redis reads where the Redis is, if it is not started here.
func (r *reader) redis(s *settings) {
	host := strings.TrimSuffix(strings.TrimPrefix(r.value("REDIS_HOST", ""), "["), "]")
	port := r.count("REDIS_PORT", 6379, 1, 65535)
	s.db = strconv.Itoa(r.count("REDIS_DB", 0, 0, 1000000))
	if host == "" {
		s.ownRedis = true
		return
	}
	if _, err := netip.ParseAddr(host); err != nil && !hostName.MatchString(host) { // it is not shown: a password may be in it
		r.problems = append(r.problems, "REDIS_HOST: this is not the name or the address of a host, such as redis.internal; "+
			"port, database and password are in REDIS_PORT, REDIS_DB and REDIS_PASSWORD")
	}
	s.redis = net.JoinHostPort(host, strconv.Itoa(port))
	s.password = r.value("REDIS_PASSWORD", "")
}

// checkUpstream returns what is wrong with the URL of the service, or "". It does not show a URL that may hold a password.
func checkUpstream(text string) string {
	const example = "write one such as http://localhost:3000 or https://shop.internal/base"
	if text == "" {
		return ""
	}
	u, err := url.Parse(text)
	shown := strconv.Quote(text)
	if strings.Contains(text, "@") {
		shown = "this"
	}
	switch {
	case err != nil || u.Opaque != "" || u.Scheme == "" && !strings.HasPrefix(text, "//"):
		return shown + " is not a URL with a scheme and a host; " + example
	case u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "h2c":
		return fmt.Sprintf("%s has the scheme %q, and only http, https and h2c are supported; %s", shown, u.Scheme, example)
	case u.Hostname() == "":
		return shown + " has no host; " + example
	case !isPort(u.Port()):
		return fmt.Sprintf("%s has the port %s, which is not from 1 to 65535; %s", shown, u.Port(), example)
	case u.User != nil:
		return "this has a user, whom Traefik does not pass on; " + example
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return shown + " has a query or a fragment, which Traefik does not pass on; " + example
	}
	return ""
}

func isPort(text string) bool {
	n, err := strconv.Atoi(text)
	return text == "" || err == nil && n >= 1 && n <= 65535
}

// checkPorts returns an error if a port cannot be listened on. It says what to type instead.
func (s *settings) checkPorts() error {
	var problems []string
	first := s.gateways[0]
	right := first
	var err error
	if refused := gateway.CanListen(first.web()); refused != nil {
		problems = append(problems, "PORT: "+refused.Error())
		if right.port, err = gateway.FreePortFrom(max(first.port+1, defaultPort), first.api); err != nil {
			return err
		}
	}
	refused := gateway.CanListen(first.apiAddress())
	if first.api == first.port {
		refused = fmt.Errorf("%s is the port of the gateway itself", first.apiAddress())
	}
	if refused != nil {
		problems = append(problems, "API_PORT: "+refused.Error())
		if right.api, err = gateway.FreePortFrom(max(first.api+1, defaultAPIPort), right.port); err != nil {
			return err
		}
	}
	if problems == nil {
		return nil
	}
	return fmt.Errorf("%s; write: %s", strings.Join(problems, "; "), s.command(right))
}

// command returns what to type to start with other ports.
func (s *settings) command(with ports) string {
	text := fmt.Sprintf("PORT=%d API_PORT=%d make run", with.port, with.api)
	if s.number > 1 {
		text = fmt.Sprintf("GATEWAYS=%d %s", s.number, text)
	}
	return text
}

// chooseAddresses chooses free ports for all that has none yet: the further gateways, a Redis and an upstream that are started here.
func (s *settings) chooseAddresses() error {
	for len(s.gateways) < s.number {
		var taken []int
		for _, at := range s.gateways {
			taken = append(taken, at.port, at.api)
		}
		last := s.gateways[len(s.gateways)-1]
		port, err := gateway.FreePortFrom(max(last.port+1, defaultPort), taken...)
		if err != nil {
			return err
		}
		api, err := gateway.FreePortFrom(max(last.api+1, defaultAPIPort), append(taken, port)...)
		if err != nil {
			return err
		}
		s.gateways = append(s.gateways, ports{port, api})
	}
	if s.ownRedis {
		address, err := gateway.FreeAddress()
		if err != nil {
			return err
		}
		s.redis = address
	}
	if s.upstreamURL == "" {
		address, err := gateway.FreeAddress()
		if err != nil {
			return err
		}
		s.upstream = address
		s.upstreamURL = "http://" + address
	}
	return nil
}

// env is what the dynamic files read.
func (s *settings) env() []string {
	host, port, _ := net.SplitHostPort(s.redis)
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	env := []string{"REDIS_HOST=" + host, "REDIS_PORT=" + port, "REDIS_SENTINELS=", "UPSTREAM_URL=" + s.upstreamURL}
	if s.ownRedis {
		env = append(env, "REDIS_PASSWORD=", "REDIS_DB=0")
	}
	for _, v := range append(s.collector, s.variables...) {
		env = append(env, v.name+"="+v.value)
	}
	return env
}
