package resilience

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/resilient-gateway/resilience/identity"
)

const (
	maxHeaders = 8   // in a key
	maxName    = 128 // bytes of the name of a parameter or a claim
)

// readSource reads a sourceCriterion, which is at the path in the configuration.
func readSource(r *problems, path string, c *SourceCriterionConfig) identity.Source {
	r.unknown(path+".", c.Unknown, "ipStrategy", "requestHeaderName", "requestHost", "requestMethod", "requestPath", "requestCookieName",
		"requestQueryName", "requestJWTClaim", "all", "missingSource")
	before := len(r.problems)
	source := identity.Source{
		Header: readHeaderNames(r, path+".requestHeaderName", c.RequestHeaderName),
		Host:   r.flag(path+".requestHost", c.RequestHost),
		Method: r.flag(path+".requestMethod", c.RequestMethod),
		Path:   readPattern(r, path+".requestPath", c.RequestPath),
		Cookie: readCookie(r, path+".requestCookieName", c.RequestCookieName),
		Query:  readSourceName(r, path+".requestQueryName", c.RequestQueryName),
		Claim:  readSourceName(r, path+".requestJWTClaim", c.RequestJWTClaim),
		All:    r.flag(path+".all", c.All),
	}
	if c.IPStrategy != nil {
		readIPStrategy(r, path+".ipStrategy", &source, c.IPStrategy)
	}
	others := otherSources(c, source)
	source.Address = c.IPStrategy != nil && len(others) > 0
	checkAll(r, path, c, source, others)
	source.Missing = readMissing(r, path+".missingSource", c.MissingSource)
	if source.Missing != "" && !source.CanBeMissing() && len(r.problems) == before {
		r.add(fmt.Sprintf("%s.missingSource: %q has no effect, as every request has this source; leave it out", path, source.Missing))
	}
	return source
}

// otherSources returns the keys that are set besides ipStrategy and all.
func otherSources(c *SourceCriterionConfig, source identity.Source) (set []string) {
	for _, one := range []struct {
		key string
		set bool
	}{
		{"requestHeaderName", isSet(c.RequestHeaderName)}, {"requestHost", source.Host}, {"requestMethod", source.Method},
		{"requestPath", isSet(c.RequestPath)}, {"requestCookieName", isSet(c.RequestCookieName)},
		{"requestQueryName", isSet(c.RequestQueryName)}, {"requestJWTClaim", isSet(c.RequestJWTClaim)},
	} {
		if one.set {
			set = append(set, one.key)
		}
	}
	return set
}

func isSet(text string) bool { return strings.TrimSpace(text) != "" }

// checkAll checks that all has no other source next to it.
func checkAll(r *problems, path string, c *SourceCriterionConfig, source identity.Source, others []string) {
	if c.IPStrategy != nil {
		others = append([]string{"ipStrategy"}, others...)
	}
	if source.All && len(others) > 0 {
		r.add(fmt.Sprintf("%s: all gives all requests one bucket, and excludes %s; leave out one or the other", path, strings.Join(others, ", ")))
	}
}

// readHeaderNames reads the names of headers, and returns them with commas and without blanks.
func readHeaderNames(r *problems, path, text string) string {
	if !isSet(text) {
		return ""
	}
	seen := map[string]bool{}
	names := strings.Split(text, ",")
	for i, name := range names {
		name = strings.TrimSpace(name)
		names[i] = name
		lower := strings.ToLower(name)
		switch {
		case name == "":
			r.add(path + ": an entry is empty; write the name of a header there, or leave the entry out")
		case !isHeaderName(name):
			r.invalid(path, name, `the name of a header, such as "X-Api-Key"`)
		case lower == "host":
			r.add(path + ": the host is not among the headers; write requestHost: true instead")
		case seen[lower]:
			r.add(fmt.Sprintf("%s: %q is there twice; write each header once", path, name))
		}
		seen[lower] = true
	}
	if len(names) > maxHeaders {
		r.add(fmt.Sprintf("%s: %d headers; write at most %d", path, len(names), maxHeaders))
	}
	return strings.Join(names, ",")
}

func readCookie(r *problems, path, text string) string {
	text = strings.TrimSpace(text)
	if text != "" && !isHeaderName(text) {
		r.invalid(path, text, `the name of a cookie, such as "session"`)
		return ""
	}
	return text
}

// readSourceName reads the name of a parameter or a claim.
func readSourceName(r *problems, path, text string) string {
	text = strings.TrimSpace(text)
	if len(text) > maxName || !identity.IsPlainText(text) || strings.ContainsAny(text, "=&;,#") {
		r.invalid(path, text, fmt.Sprintf("a name of at most %d bytes without blanks and without any of = & ; , #", maxName))
		return ""
	}
	return text
}

func readPattern(r *problems, path, text string) string {
	text = strings.TrimSpace(text)
	if text == "" {
		return ""
	}
	if err := identity.CheckPath(text); err != nil {
		r.add(fmt.Sprintf("%s: %q %s; write a pattern such as \"/api/{tenant}/*\"", path, text, err.Error()))
		return ""
	}
	return text
}

// readMissing reads what a request without the source has instead; "": the default.
func readMissing(r *problems, path, text string) string {
	text = strings.TrimSpace(text)
	switch text {
	case "", identity.MissingShared:
		return ""
	case identity.MissingAddress, identity.MissingPass, identity.MissingDeny:
		return text
	}
	r.invalid(path, text, "one of shared, address, pass and deny")
	return ""
}

func readIPStrategy(r *problems, path string, source *identity.Source, c *IPStrategyConfig) {
	r.unknown(path+".", c.Unknown, "depth", "excludedIPs", "ipv6Subnet")
	source.Depth = int(r.count(path+".depth", c.Depth, 0, 1000, 0))
	source.IPv6Subnet = int(r.count(path+".ipv6Subnet", c.IPv6Subnet, 1, 128, 0))
	for _, text := range c.ExcludedIPs {
		text = strings.TrimSpace(text)
		if text == "" {
			r.add(path + ".excludedIPs: an entry is empty; write an address or a network there, or leave the entry out")
			continue
		}
		prefix, err := parsePrefix(text)
		if err != nil {
			r.invalid(path+".excludedIPs", text, `an IP address or a network, such as "10.0.0.0/8"`)
		}
		source.Excluded = append(source.Excluded, prefix)
	}
}

func parsePrefix(text string) (netip.Prefix, error) {
	if strings.Contains(text, "/") {
		prefix, err := netip.ParsePrefix(text)
		if err == nil && prefix.Addr().Is4In6() && prefix.Bits() >= 96 {
			prefix = netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-96)
		}
		return prefix.Masked(), err
	}
	address, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}, err
	}
	address = address.Unmap().WithZone("")
	return netip.PrefixFrom(address, address.BitLen()), nil
}
