package walkthrough

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"

	"github.com/resilient-gateway/resilience/harness/gateway"
	"gopkg.in/yaml.v3"
)

// patience is what Redis is given for an answer: with the default of 100 ms, a gateway on a busy machine would limit by itself now and
// then, as it should, and a README could not say what is printed.
const patience = "5s"

// config is a part of Traefik's configuration.
type config = map[string]any

// Static turns the static configuration of an example into one for this machine: other addresses and another folder of dynamic files. Its
// API shows the routes.
func Static(static []byte, web, api, dynamic string) (config, error) {
	var c config
	if err := yaml.Unmarshal(static, &c); err != nil {
		return nil, err
	}
	if address := at(c, "entryPoints", "web", "address"); address != ":5000" {
		return nil, fmt.Errorf("entryPoints.web.address is %v; write :5000", address)
	}
	if folder := at(c, "providers", "file", "directory"); folder != "/etc/traefik/dynamic" {
		return nil, fmt.Errorf("providers.file.directory is %v; write /etc/traefik/dynamic", folder)
	}
	gateway.Set(c, web, "entryPoints", "web", "address")
	gateway.Set(c, api, "entryPoints", "traefik", "address")
	gateway.Set(c, dynamic, "providers", "file", "directory")
	gateway.Set(c, config{"insecure": true, "dashboard": false}, "api")
	gateway.Set(c, config{"level": "INFO", "format": "json"}, "log")
	gateway.Set(c, false, "global", "checkNewVersion")
	return c, nil
}

// Dynamic turns a dynamic file of an example into one for this machine. Services gives the address here of each host and port that the
// file may name, such as redis:6379. It returns the names of the file's routers too.
func Dynamic(dynamic []byte, services map[string]string) (local []byte, routers []string, err error) {
	var c config
	if err := yaml.Unmarshal(dynamic, &c); err != nil {
		return nil, nil, err
	}
	named, _ := at(c, "http", "routers").(config)
	for name := range named {
		routers = append(routers, name)
	}
	middlewares, _ := at(c, "http", "middlewares").(config)
	for name := range middlewares {
		redis, uses := at(middlewares, name, "plugin", "resilience", "redis").(config)
		if !uses {
			continue
		}
		gateway.Set(redis, patience, "timeout")
		gateway.Set(redis, patience, "dialTimeout")
		if _, secure := redis["tls"]; secure {
			host, _, err := net.SplitHostPort(fmt.Sprint(redis["address"]))
			if err != nil {
				return nil, nil, fmt.Errorf("%s: redis.address: %w", name, err)
			}
			gateway.Set(redis, host, "tls", "serverName")
		}
	}
	if local, err = yaml.Marshal(c); err != nil {
		return nil, nil, err
	}
	for name, address := range services {
		pattern := regexp.MustCompile(`(//| |,)` + regexp.QuoteMeta(name) + `\b`)
		local = pattern.ReplaceAll(local, []byte("${1}"+address))
	}
	return local, routers, nil
}

// at returns what is at the end of a path of names, or nil.
func at(value any, path ...string) any {
	for _, name := range path {
		here, _ := value.(config)
		value = here[name]
	}
	return value
}

// Ports puts other ports in a command. Published gives the port here of each that the README names.
func Ports(command string, published map[string]string) string {
	return regexp.MustCompile(`\b\d+\b`).ReplaceAllStringFunc(command, func(number string) string {
		if port, isPublished := published[number]; isPublished {
			return port
		}
		return number
	})
}

// Run runs a command as a shell does, and returns what it writes to its standard output.
func Run(command string) (string, error) {
	shell := exec.Command("bash", "-c", "set -o pipefail; "+command)
	shell.Env = append(os.Environ(), "no_proxy=*", "NO_PROXY=*", "LC_ALL=C")
	var stderr bytes.Buffer
	shell.Stderr = &stderr
	out, err := shell.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s%s", command, err, out, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}
