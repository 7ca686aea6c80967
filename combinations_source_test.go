//go:build !yaegi

package resilience

import (
	"encoding/base64"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

// The sources and matches of the second rate limiter (combinations_model_test.go).

// glob compares a text with a pattern in which * is any run of characters.
func glob(pattern, text string) bool {
	return regexp.MustCompile(`(?s)\A` + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, `.*`) + `\z`).MatchString(text)
}

func oneOf(patterns []string, text string) bool {
	for _, pattern := range patterns {
		if glob(pattern, text) {
			return true
		}
	}
	return len(patterns) == 0
}

func (m *model) matches(c *MatchConfig, r *http.Request) bool {
	if c == nil {
		return true
	}
	hosts := []string{}
	for _, host := range c.Hosts {
		hosts = append(hosts, strings.ToLower(host))
	}
	if !oneOf(c.Paths, r.URL.Path) || !oneOf(c.Methods, r.Method) || !oneOf(hosts, modelHost(r)) {
		return false
	}
	for name, pattern := range c.Headers {
		found := false
		for _, line := range r.Header.Values(name) {
			found = found || glob(pattern, line)
		}
		if !found {
			return false
		}
	}
	if len(c.ClientIPs) == 0 {
		return true
	}
	by := &IPStrategyConfig{}
	if m.c.SourceCriterion != nil && m.c.SourceCriterion.IPStrategy != nil {
		by = &IPStrategyConfig{Depth: m.c.SourceCriterion.IPStrategy.Depth, ExcludedIPs: m.c.SourceCriterion.IPStrategy.ExcludedIPs}
	}
	address, err := netip.ParseAddr(addressBy(by, r))
	return err == nil && within(c.ClientIPs, address.String())
}

func within(networks []string, text string) bool {
	address, err := netip.ParseAddr(text)
	if err != nil {
		return false
	}
	for _, network := range networks {
		if one, err := netip.ParseAddr(network); err == nil && one == address {
			return true
		}
		if prefix, err := netip.ParsePrefix(network); err == nil && prefix.Contains(address) {
			return true
		}
	}
	return false
}

func modelHost(r *http.Request) string {
	host := strings.ToLower(r.Host)
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.TrimSuffix(host, ".")
}

func connectionOf(r *http.Request) string {
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	return host
}

// addressBy returns the address that ipStrategy names, or "".
func addressBy(c *IPStrategyConfig, r *http.Request) string {
	entries := []string{}
	for _, line := range r.Header["X-Forwarded-For"] {
		for _, entry := range strings.Split(line, ",") {
			entries = append(entries, strings.TrimSpace(entry))
		}
	}
	depth := int(numberOf(c.Depth, 0))
	switch {
	case depth > 0:
		if len(entries) < depth {
			return ""
		}
		return subnet(entries[len(entries)-depth], c)
	case len(c.ExcludedIPs) > 0:
		for i := len(entries) - 1; i >= 0; i-- {
			if !within(c.ExcludedIPs, entries[i]) {
				return entries[i]
			}
		}
		return ""
	}
	return subnet(connectionOf(r), c)
}

func subnet(text string, c *IPStrategyConfig) string {
	address, err := netip.ParseAddr(text)
	if err != nil || !address.Is6() || c.IPv6Subnet == "" {
		return text
	}
	prefix, _ := address.Prefix(int(numberOf(c.IPv6Subnet, 128)))
	return prefix.Addr().String()
}

// clientOf returns the client by a source, or else what missingSource says: pass or deny.
func clientOf(c *SourceCriterionConfig, r *http.Request) (key, otherwise string) {
	if c == nil {
		return "ip " + connectionOf(r), ""
	}
	if c.All == "true" {
		return "all", ""
	}
	values := sourceValues(c, r)
	if len(values) == 0 { // an empty block
		values = []string{connectionOf(r)}
	}
	key = "source"
	for _, value := range values {
		if value == "" || value[0] < ' ' {
			switch c.MissingSource {
			case "pass", "deny":
				return "", c.MissingSource
			case "address":
				address := ""
				if c.IPStrategy != nil {
					address = addressBy(c.IPStrategy, r)
				}
				if address == "" && c.IPStrategy != nil {
					address = subnet(connectionOf(r), c.IPStrategy)
				}
				if address == "" {
					address = connectionOf(r)
				}
				return "address " + address, ""
			}
			return "shared", ""
		}
		key += " " + strconv.Quote(value)
	}
	return key, ""
}

func sourceValues(c *SourceCriterionConfig, r *http.Request) (values []string) {
	if c.IPStrategy != nil {
		values = append(values, addressBy(c.IPStrategy, r))
	}
	if c.RequestHeaderName != "" {
		for _, name := range strings.Split(c.RequestHeaderName, ",") {
			last := ""
			for _, line := range r.Header.Values(strings.TrimSpace(name)) {
				last = line
			}
			values = append(values, last)
		}
	}
	if c.RequestHost == "true" {
		values = append(values, modelHost(r))
	}
	if c.RequestMethod == "true" {
		method := "other"
		for _, one := range strings.Fields("GET HEAD POST PUT PATCH DELETE CONNECT OPTIONS TRACE") {
			if r.Method == one {
				method = one
			}
		}
		values = append(values, method)
	}
	if c.RequestPath != "" {
		values = append(values, capturesOf(c.RequestPath, r))
	}
	if c.RequestCookieName != "" {
		found := []string{}
		for _, one := range r.Cookies() {
			if one.Name == c.RequestCookieName {
				value, _ := url.PathUnescape(strings.Trim(one.Value, `"`))
				found = append(found, value)
			}
		}
		values = append(values, onlyValue(found))
	}
	if c.RequestQueryName != "" {
		values = append(values, onlyValue(r.URL.Query()[c.RequestQueryName]))
	}
	if c.RequestJWTClaim != "" {
		values = append(values, modelClaim(c.RequestJWTClaim, r))
	}
	return values
}

func onlyValue(found []string) string {
	for _, one := range found {
		if one != found[0] {
			return ""
		}
	}
	if len(found) == 0 {
		return ""
	}
	return found[0]
}

func capturesOf(pattern string, r *http.Request) string {
	path := r.URL.Path
	if strings.Contains(strings.ToLower(r.URL.EscapedPath()), "%2f") {
		return ""
	}
	for _, segment := range strings.Split(path, "/")[1:] {
		if segment == "." || segment == ".." || segment == "" && !strings.HasSuffix(path, "/") {
			return ""
		}
	}
	if strings.Contains(path, "//") {
		return ""
	}
	expression, end := regexp.QuoteMeta(pattern), ""
	if strings.HasSuffix(pattern, "/*") {
		expression, end = strings.TrimSuffix(expression, `/\*`), `(?:/.*)?`
	}
	expression = strings.ReplaceAll(expression, `\*`, `.*`)
	expression = regexp.MustCompile(`\\\{\w+\\\}`).ReplaceAllString(expression, `([^/]+)`)
	captures := regexp.MustCompile(`\A` + expression + end + `\z`).FindStringSubmatch(path)
	if captures == nil {
		return ""
	}
	values := []string{}
	for _, value := range captures[1:] {
		value, _, _ = strings.Cut(value, ";")
		if value == "" {
			return ""
		}
		values = append(values, strconv.Quote(value))
	}
	return strings.Join(values, " ")
}

func modelClaim(name string, r *http.Request) string {
	lines := r.Header["Authorization"]
	if len(lines) != 1 || !strings.HasPrefix(lines[0], "Bearer ") {
		return ""
	}
	parts := strings.Split(strings.TrimPrefix(lines[0], "Bearer "), ".")
	if len(parts) != 3 {
		return ""
	}
	payload, _ := base64.RawURLEncoding.DecodeString(parts[1])
	claims := map[string]json.RawMessage{}
	if json.Unmarshal(payload, &claims) != nil {
		return ""
	}
	text, found := claims[name]
	for levels := strings.Split(name, "."); !found && len(levels) == 2; levels = nil {
		inner := map[string]json.RawMessage{}
		if json.Unmarshal(claims[levels[0]], &inner) == nil {
			text = inner[levels[1]]
		}
	}
	words := ""
	if json.Unmarshal(text, &words) == nil {
		return words
	}
	number := json.Number("")
	if json.Unmarshal(text, &number) == nil {
		return string(text)
	}
	return ""
}
