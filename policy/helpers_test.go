package policy

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/resilient-gateway/resilience/identity"
	"github.com/resilient-gateway/resilience/ratelimit"
)

// asked returns a request: "METHOD target", then "Name: value" and "from address:port", separated by " | ".
func asked(text string) *http.Request {
	parts := strings.Split(text, " | ")
	method, target, _ := strings.Cut(parts[0], " ")
	r := httptest.NewRequest(http.MethodGet, target, nil)
	r.Method = method
	for _, part := range parts[1:] {
		if strings.HasPrefix(part, "from ") {
			r.RemoteAddr = part[len("from "):]
			continue
		}
		name, value, _ := strings.Cut(part, ": ")
		if name == "Host" {
			r.Host = value
		} else {
			r.Header[name] = append(r.Header[name], value)
		}
	}
	return r
}

// connection returns the address of a request's connection.
func connection(r *http.Request) netip.Addr {
	at, _ := netip.ParseAddrPort(r.RemoteAddr)
	return at.Addr().Unmap().WithZone("")
}

func tokens(capacity int64) *ratelimit.Limit { return ratelimit.NewLimit(capacity, 1, time.Second) }

// shown returns a decision in words: each draw as "key/limits/cost", who denies the request, and the draws that are charged by status.
func shown(d *Decision) string {
	if d.Denied != "" {
		return "denied by " + d.Denied
	}
	words := []string{}
	for i := range d.Plan.Draws {
		draw := &d.Plan.Draws[i]
		names := []string{}
		draw.Levels.Each(func(name string, _ *ratelimit.Limit) { names = append(names, name) })
		sort.Strings(names)
		words = append(words, draw.Key+"/"+strings.Join(names, "+")+"/"+strconv.FormatInt(draw.Cost, 10))
	}
	for i := range d.Charges {
		words = append(words, "charge "+strconv.Itoa(d.Charges[i].Draw))
	}
	if d.Plan.Fast {
		words = append(words, "fast")
	}
	return strings.Join(words, " ")
}

// hashed returns the part of a key in Redis that says which client it is for.
func hashed(key string) string { return identity.Hashed(key) }
