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
	if s.number > 1 {
		b.WriteString(s.toTryTogether())
	}
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
func (s *settings) toTry() string {
	return fmt.Sprintf(`
Try, in another terminal:

  a request          curl -i http://%[1]s/proxy/ok
  a burst into 429   curl -s -o /dev/null -w '%%{http_code}\n' 'http://%[1]s/proxy/ok?[1-%[2]d]' | sort | uniq -c
  failures into 503  %[3]sfor i in %[4]s; do curl -s -w ' %%{http_code}\n' http://%[1]s/proxy/fail; done
`, s.gateways[0].web(), s.whole("RATE_LIMIT_CAPACITY")+200, s.pause(), s.failures(1))
}

// toTryTogether names what shows one bucket and one circuit.
func (s *settings) toTryTogether() string {
	var all []string
	for _, at := range s.gateways {
		all = append(all, strconv.Itoa(at.port))
	}
	const show = `curl -s -o /dev/null -w '%{http_code} from port %{remote_port}\n'`
	return fmt.Sprintf(`
One bucket and one circuit for all gateways:

  one bucket         %[1]s 'http://127.0.0.1:{%[2]s}/proxy/ok?[1-%[3]d]' | sort | uniq -c
  one circuit        %[4]sfor i in %[5]s; do %[1]s http://%[6]s/proxy/fail; done; sleep 1; %[1]s http://%[7]s/proxy/ok
`, show, strings.Join(all, ","), s.whole("RATE_LIMIT_CAPACITY")+50, s.pause(), s.failures(0), s.gateways[0].web(), s.gateways[1].web())
}

// whole returns the value of a variable, which was checked.
func (s *settings) whole(name string) int {
	for _, v := range s.variables {
		if v.name == name {
			number, _ := strconv.ParseFloat(v.value, 64)
			return int(number)
		}
	}
	return 0
}

// failures returns the numbers that a loop counts to open the circuit, and some more.
func (s *settings) failures(more int) string {
	number := s.whole("CIRCUIT_BREAKER_FAILURE_THRESHOLD") + more
	if number > 10 {
		return fmt.Sprintf("$(seq %d)", number)
	}
	var counted []string
	for i := range number {
		counted = append(counted, strconv.Itoa(i+1))
	}
	return strings.Join(counted, " ")
}

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
	tokens := float64(s.whole("CIRCUIT_BREAKER_FAILURE_THRESHOLD") + 1)
	seconds := math.Ceil(tokens/float64(s.whole("RATE_LIMIT_REFILL_RATE"))*period.Seconds()) + 1
	return fmt.Sprintf("sleep %.0f; ", seconds)
}
