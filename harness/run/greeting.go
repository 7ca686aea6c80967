package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// greeting tells where everything is, what does not answer, and what to try.
func (s *settings) greeting(logs []string, p probed) string {
	var b strings.Builder
	if s.number == 1 {
		b.WriteString("\nThe gateway runs.\n\n")
	} else {
		fmt.Fprintf(&b, "\n%d gateways run, which share one Redis.\n\n", s.number)
	}
	for _, at := range s.gateways {
		fmt.Fprintf(&b, "  gateway    http://%s/proxy/...\n", at.web())
	}
	for _, at := range s.gateways {
		fmt.Fprintf(&b, "  API        http://%s/api/http/middlewares\n", at.apiAddress())
	}
	for _, at := range s.gateways {
		fmt.Fprintf(&b, "  status     http://%s/resilience/\n", at.apiAddress())
	}
	fmt.Fprintf(&b, "  upstream   %s%s\n", s.upstreamURL, silent(p.upstream, "UPSTREAM_URL"))
	fmt.Fprintf(&b, "  redis      %s%s\n", s.redis, s.aboutRedis(p.redis))
	for _, log := range logs {
		fmt.Fprintf(&b, "  log        %s\n", log)
	}
	b.WriteString("\n")
	for _, v := range s.variables {
		fmt.Fprintf(&b, "  %-44s %s\n", v.name, v.value)
	}
	b.WriteString(s.toTry())
	b.WriteString("\nCtrl-C ends it.\n")
	return b.String()
}

func silent(problem, variable string) string {
	if problem == "" {
		return ""
	}
	return fmt.Sprintf(" (%s: it does not answer: %s)", variable, problem)
}

func (s *settings) aboutRedis(problem string) string {
	switch {
	case s.embedded:
		return " (embedded: there is no redis-server on this machine)"
	case s.ownRedis:
		return " (started here)"
	}
	return silent(problem, "REDIS_HOST")
}

// toTry names what to type. The commands may be typed at any speed: that with failures waits until the bucket holds enough tokens for it.
// A service of the user's may have no such paths, and is not to be flooded.
func (s *settings) toTry() string {
	if s.upstream == "" {
		return fmt.Sprintf(`
Try, in another terminal:

  a request          curl -i http://%s/proxy/
`, s.gateways[0].web())
	}
	try := fmt.Sprintf(`
Try, in another terminal:

  a request          curl -i http://%[1]s/proxy/ok
  a burst into 429   %[2]s 'http://%[1]s/proxy/ok?[1-%[3]d]' | sort | uniq -c
  failures into 503  %[4]s%[2]s 'http://%[1]s/proxy/fail?[1-%[5]d]' | uniq -c
`, s.gateways[0].web(), showStatus, s.whole("RATE_LIMIT_CAPACITY")+200, s.pause(), s.failures()+1)
	if s.number > 1 {
		try += s.toTryTogether()
	}
	return try
}

const showStatus = `curl -s -o /dev/null -w '%{http_code}\n'`

// toTryTogether names what shows one bucket and one circuit. The circuit is opened by one gateway, and another refuses.
func (s *settings) toTryTogether() string {
	var all []string
	for _, at := range s.gateways {
		all = append(all, strconv.Itoa(at.port))
	}
	each := (s.whole("RATE_LIMIT_CAPACITY") + 200 + s.number - 1) / s.number
	return fmt.Sprintf(`
One bucket and one circuit for all gateways:

  one bucket         %[1]s 'http://127.0.0.1:{%[2]s}/proxy/ok?[1-%[3]d]' | sort | uniq -c
  one circuit        %[4]s%[1]s 'http://%[5]s/proxy/fail?[1-%[6]d]' | uniq -c
                     sleep 1; curl -s -w ' %%{http_code}\n' http://%[7]s/proxy/ok
`, showStatus, strings.Join(all, ","), each, s.pause(), s.gateways[0].web(), s.failures(), s.gateways[1].web())
}

// value returns the value of a variable, which was checked.
func (s *settings) value(name string) float64 {
	for _, v := range s.variables {
		if v.name == name {
			number, _ := strconv.ParseFloat(v.value, 64)
			return number
		}
	}
	return 0
}

func (s *settings) whole(name string) int { return int(s.value(name)) }

// failures is how many open the circuit.
func (s *settings) failures() int { return s.whole("CIRCUIT_BREAKER_FAILURE_THRESHOLD") }

// pause returns the command that waits until an empty bucket holds the tokens that the failures need, and one second more.
func (s *settings) pause() string {
	period := time.Second
	for _, v := range s.variables {
		if v.name == "RATE_LIMIT_REFILL_PERIOD" {
			if d, err := time.ParseDuration(v.value); err == nil {
				period = d
			}
		}
	}
	tokens := float64(s.failures() + 1)
	seconds := math.Ceil(tokens/s.value("RATE_LIMIT_REFILL_RATE")*period.Seconds()) + 1
	return fmt.Sprintf("sleep %.0f; ", seconds)
}
