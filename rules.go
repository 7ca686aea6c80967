package resilience

import (
	"fmt"
	"net/http"
	"net/netip"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/resilient-gateway/resilience/identity"
	"github.com/resilient-gateway/resilience/policy"
	"github.com/resilient-gateway/resilience/ratelimit"
)

const (
	maxLimits  = 16 // in a rateLimit block, and as many tiers
	maxRules   = 64 // patterns in a list
	maxCost    = 1000000
	nameLength = 32
)

// limitNumbers are the numbers of a limit.
type limitNumbers struct {
	capacity, rate int64
	period         time.Duration
}

func (n limitNumbers) text() string {
	return fmt.Sprintf("%d at once, %d each %s", n.capacity, n.rate, n.period)
}

// readNumbers reads the numbers of a limit at a path. Those that are left out are the default's.
func readNumbers(r *problems, path, capacity, rate, period string, byDefault limitNumbers) limitNumbers {
	n := limitNumbers{
		capacity: r.count(path+".capacity", capacity, 1, maxCount, byDefault.capacity),
		rate:     r.count(path+".refillRate", rate, 1, maxCount, byDefault.rate),
	}
	if isFraction(rate) {
		r.extend("for a fraction of a token make refillPeriod longer")
	}
	n.period = r.duration(path+".refillPeriod", period, time.Microsecond, byDefault.period)
	return n
}

// readRules reads what puts the requests of a route under plans. If nothing does, they are all under the block's own limit.
func readRules(r *problems, s *settings, c *RateLimitConfig, own limitNumbers) {
	if len(c.Limits) == 0 && len(c.Tiers) == 0 && c.Cost == nil && c.Penalty == nil && s.maxDelay == 0 && !s.dryRun {
		return
	}
	rules := &policy.Rules{Source: s.keySource, Own: s.limit}
	if len(c.Limits) > 0 && c.Capacity == "" && c.RefillRate == "" {
		rules.Own = nil
	}
	readLimits(r, s, rules, c, own)
	readTiers(r, s, rules, c, own)
	if c.Cost != nil {
		rules.Cost = readCost(r, s, c.Cost)
	}
	checkCosts(r, rules)
	if c.Penalty != nil {
		rules.Penalty = readPenalty(r, s, c.Penalty)
	}
	if s.dryRun {
		s.parts = append(s.parts, "rate limit: dry run, nothing is refused")
	}
	s.rules = rules
	s.rulesText = fmt.Sprintf("%v %v %v", c.Limits != nil, strings.Join(s.parts, ";"), describe(c))
}

// describe returns all of a block's rules as text, to compare them with those of another instance.
func describe(c *RateLimitConfig) string {
	text := ""
	for _, name := range limitNames(c) {
		one := c.Limits[name]
		text += fmt.Sprintf("limit %s %s %s %s %q %s %s;", name, one.Capacity, one.RefillRate, one.RefillPeriod, one.ChargeStatus,
			describeSource(one.SourceCriterion), describeMatch(one.Match))
	}
	for _, name := range tierNames(c) {
		one := c.Tiers[name]
		text += fmt.Sprintf("tier %s %s %s %s %s %s %s %s;", name, one.Priority, one.Capacity, one.RefillRate, one.RefillPeriod, one.Unlimited,
			one.Deny, describeMatch(one.Match))
	}
	if c.Cost != nil {
		text += fmt.Sprintf("cost %s %s %v %v;", c.Cost.Header, c.Cost.Max, c.Cost.Methods, c.Cost.Paths)
	}
	if c.Penalty != nil {
		text += fmt.Sprintf("penalty %s %s %s;", c.Penalty.Refusals, c.Penalty.Time, c.Penalty.MaxTime)
	}
	if c.MaxDelay != "" {
		text += fmt.Sprintf("delay %s %s;", c.MaxDelay, c.MaxDelayed)
	}
	return text
}

func describeSource(c *SourceCriterionConfig) string {
	if c == nil {
		return ""
	}
	text := fmt.Sprintf("%q %q %q %q %q %q %q %q %q", c.RequestHeaderName, c.RequestHost, c.RequestMethod, c.RequestPath, c.RequestCookieName,
		c.RequestQueryName, c.RequestJWTClaim, c.All, c.MissingSource)
	if c.IPStrategy != nil {
		text += fmt.Sprintf(" %q %q %q", c.IPStrategy.Depth, c.IPStrategy.ExcludedIPs, c.IPStrategy.IPv6Subnet)
	}
	return text
}

func describeMatch(c *MatchConfig) string {
	if c == nil {
		return ""
	}
	return fmt.Sprintf("%q %q %q %q %q", c.Paths, c.Methods, c.Hosts, c.Headers, c.ClientIPs)
}

func limitNames(c *RateLimitConfig) []string {
	names := []string{}
	for name := range c.Limits {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// tierNames returns the names of the tiers in the order in which they are tried.
func tierNames(c *RateLimitConfig) []string {
	names := []string{}
	for name := range c.Tiers {
		names = append(names, name)
	}
	sort.Slice(names, func(i, j int) bool {
		a, b := priorityOf(c.Tiers[names[i]]), priorityOf(c.Tiers[names[j]])
		if a != b {
			return a > b
		}
		return names[i] < names[j]
	})
	return names
}

func priorityOf(c *TierConfig) int64 {
	if c == nil {
		return 0
	}
	n, _ := strconv.ParseInt(strings.TrimSpace(c.Priority), 10, 64)
	return n
}

func readLimits(r *problems, s *settings, rules *policy.Rules, c *RateLimitConfig, own limitNumbers) {
	if len(c.Limits) > maxLimits {
		r.add(fmt.Sprintf("rateLimit.limits: %d limits; write at most %d", len(c.Limits), maxLimits))
	}
	for _, name := range limitNames(c) {
		path := "rateLimit.limits." + name
		checkRuleName(r, path, name)
		one := c.Limits[name]
		if one == nil {
			one = &LimitConfig{}
		}
		r.unknown(path+".", one.Unknown, "capacity", "refillRate", "refillPeriod", "sourceCriterion", "match", "chargeStatus")
		numbers := readNumbers(r, path, one.Capacity, one.RefillRate, one.RefillPeriod, own)
		rule := policy.LimitRule{Name: name, Limit: newLimit(r, path, numbers), Match: readMatch(r, path+".match", one.Match)}
		if one.SourceCriterion != nil {
			source := readSource(r, path+".sourceCriterion", one.SourceCriterion)
			rule.Source = &source
		}
		rule.Charge = readStatuses(r, path+".chargeStatus", one.ChargeStatus)
		rules.Limits = append(rules.Limits, rule)
		s.parts = append(s.parts, "limit "+name+": "+numbers.text())
	}
}

func readTiers(r *problems, s *settings, rules *policy.Rules, c *RateLimitConfig, own limitNumbers) {
	if len(c.Tiers) > maxLimits {
		r.add(fmt.Sprintf("rateLimit.tiers: %d tiers; write at most %d", len(c.Tiers), maxLimits))
	}
	reached := true // the next tier can match a request
	for _, name := range tierNames(c) {
		path := "rateLimit.tiers." + name
		checkRuleName(r, path, name)
		if c.Limits[name] != nil {
			r.add(path + ": a limit has this name too; write another name for one of them")
		}
		one := c.Tiers[name]
		if one == nil {
			one = &TierConfig{}
		}
		r.unknown(path+".", one.Unknown, "priority", "match", "capacity", "refillRate", "refillPeriod", "unlimited", "deny")
		if !reached {
			r.add(path + ": it can never apply, as a tier before it has no match and so is for all requests; give that one a match or a lower priority")
		}
		rule := readTier(r, path, name, one, own)
		reached = reached && !rule.Match.Empty()
		rules.Tiers = append(rules.Tiers, rule)
		s.parts = append(s.parts, "tier "+name+": "+tierText(rule, readNumbers(&problems{}, path, one.Capacity, one.RefillRate, one.RefillPeriod, own)))
	}
}

func tierText(rule policy.TierRule, n limitNumbers) string {
	if rule.Deny {
		return "denied"
	}
	if rule.Unlimited {
		return "unlimited"
	}
	return n.text()
}

func readTier(r *problems, path, name string, c *TierConfig, own limitNumbers) policy.TierRule {
	r.count(path+".priority", c.Priority, -maxCount, maxCount, 0)
	rule := policy.TierRule{
		Name: name, Match: readMatch(r, path+".match", c.Match),
		Unlimited: r.flag(path+".unlimited", c.Unlimited), Deny: r.flag(path+".deny", c.Deny),
	}
	if rule.Unlimited && rule.Deny {
		r.add(path + ": unlimited and deny exclude each other; write one of them")
	}
	hasNumbers := c.Capacity+c.RefillRate+c.RefillPeriod != ""
	if hasNumbers && (rule.Unlimited || rule.Deny) {
		r.add(path + ": a tier that is unlimited or denied has no numbers; leave out capacity, refillRate and refillPeriod, or unlimited and deny")
	}
	if !hasNumbers && !rule.Unlimited && !rule.Deny {
		r.add(path + ": it changes nothing; write capacity and refillRate, or unlimited, or deny")
	}
	numbers := readNumbers(r, path, c.Capacity, c.RefillRate, c.RefillPeriod, own)
	if !rule.Unlimited && !rule.Deny {
		rule.Limit = newLimit(r, path, numbers)
	}
	return rule
}

// checkRuleName checks the name of a limit or tier, which is part of a key in Redis.
func checkRuleName(r *problems, path, name string) {
	if name == ratelimit.OwnLimit {
		r.add(path + ": this is the name of the block's own limit; write another name")
		return
	}
	if name == ratelimit.PenaltyName {
		r.add(path + ": refusals during a penalty have this name; write another name")
		return
	}
	valid := name != "" && len(name) <= nameLength
	for i := 0; i < len(name); i++ {
		valid = valid && (isLetterOrDigit(name[i]) || name[i] == '_' || name[i] == '-')
	}
	if !valid {
		r.invalid(path, name, fmt.Sprintf("a name of letters, digits, _ and -, at most %d", nameLength))
	}
}

func readMatch(r *problems, path string, c *MatchConfig) policy.Match {
	m := policy.Match{}
	if c == nil {
		return m
	}
	r.unknown(path+".", c.Unknown, "paths", "methods", "hosts", "headers", "clientIPs")
	m.Paths = readPatterns(r, path+".paths", c.Paths)
	for _, pattern := range m.Paths {
		if !strings.HasPrefix(pattern, "/") && !strings.HasPrefix(pattern, "*") {
			r.invalid(path+".paths", pattern, `a pattern that begins with / or *, such as "/api/*"`)
		}
	}
	for _, method := range readPatterns(r, path+".methods", c.Methods) {
		if method != strings.ToUpper(method) || !isHeaderName(method) {
			r.invalid(path+".methods", method, `a method in upper case, such as "POST"`)
		}
		m.Methods = append(m.Methods, method)
	}
	for _, host := range readPatterns(r, path+".hosts", c.Hosts) {
		if strings.ContainsAny(host, ":/") {
			r.invalid(path+".hosts", host, `a host without a port, such as "*.example.com"`)
		}
		m.Hosts = append(m.Hosts, strings.ToLower(host))
	}
	m.Headers = readMatchHeaders(r, path+".headers", c.Headers)
	for _, text := range readPatterns(r, path+".clientIPs", c.ClientIPs) {
		prefix, err := parsePrefix(text)
		if err != nil {
			r.invalid(path+".clientIPs", text, `an IP address or a network, such as "10.0.0.0/8"`)
		}
		m.ClientIPs = append(m.ClientIPs, prefix)
	}
	if m.Empty() {
		r.add(path + ": it names nothing, and so is for all requests; write paths, methods, hosts, headers or clientIPs, or leave it out")
	}
	return m
}

func readMatchHeaders(r *problems, path string, c map[string]string) map[string]string {
	if len(c) == 0 {
		return nil
	}
	names := []string{}
	for name := range c {
		names = append(names, name)
	}
	sort.Strings(names)
	headers, seen := map[string]string{}, map[string]string{}
	for _, name := range names {
		canonical := http.CanonicalHeaderKey(name)
		switch {
		case !isHeaderName(name):
			r.invalid(path, name, `the name of a header, such as "User-Agent"`)
		case canonical == "Host":
			r.add(path + ": the host is not among the headers; write hosts instead")
		case seen[canonical] != "":
			r.add(fmt.Sprintf("%s: %q and %q are the same header; write it once", path, seen[canonical], name))
		}
		seen[canonical] = name
		if c[name] == "" {
			r.add(fmt.Sprintf("%s.%s: the pattern is empty; write * for any value", path, name))
		}
		headers[canonical] = c[name]
	}
	return headers
}

// readPatterns reads a list.
func readPatterns(r *problems, path string, texts []string) []string {
	list := []string{}
	for _, text := range texts {
		text = strings.TrimSpace(text)
		if text == "" {
			r.add(path + ": an entry is empty; write a value there, or leave the entry out")
			continue
		}
		list = append(list, text)
	}
	if len(list) > maxRules {
		r.add(fmt.Sprintf("%s: %d entries; write at most %d", path, len(list), maxRules))
	}
	return list
}

// readStatuses reads a list of statuses and ranges of statuses.
func readStatuses(r *problems, path, text string) policy.Statuses {
	statuses := policy.Statuses{}
	if strings.TrimSpace(text) == "" {
		return statuses
	}
	for _, part := range strings.Split(text, ",") {
		first, last, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			last = first
		}
		from, err := strconv.Atoi(strings.TrimSpace(first))
		to, err2 := strconv.Atoi(strings.TrimSpace(last))
		if err != nil || err2 != nil || from < 100 || to > 599 || from > to {
			r.invalid(path, strings.TrimSpace(part), `a status or a range of statuses from 100 to 599, such as "401" or "500-599"`)
			continue
		}
		statuses.Ranges = append(statuses.Ranges, policy.StatusRange{First: from, Last: to})
	}
	return statuses
}

func readCost(r *problems, s *settings, c *CostConfig) *policy.CostRule {
	const path = "rateLimit.cost"
	r.unknown(path+".", c.Unknown, "header", "max", "methods", "paths")
	rule := &policy.CostRule{Header: strings.TrimSpace(c.Header), Max: r.count(path+".max", c.Max, 1, maxCost, 100), Methods: map[string]int64{}}
	if rule.Header != "" && !isHeaderName(rule.Header) {
		r.invalid(path+".header", rule.Header, `the name of a header, such as "X-Cost"`)
	}
	if rule.Header == "" && len(c.Methods) == 0 && len(c.Paths) == 0 {
		r.add(path + ": it names nothing, and so every request costs 1; write header, methods or paths, or leave it out")
	}
	for _, method := range sortedKeys(c.Methods) {
		if method != strings.ToUpper(method) || !isHeaderName(method) {
			r.invalid(path+".methods", method, `a method in upper case, such as "POST"`)
		}
		rule.Methods[method] = r.count(path+".methods."+method, c.Methods[method], 1, rule.Max, 1)
	}
	patterns := sortedKeys(c.Paths)
	sort.SliceStable(patterns, func(i, j int) bool { return len(patterns[i]) > len(patterns[j]) })
	for _, pattern := range patterns {
		if !strings.HasPrefix(pattern, "/") && !strings.HasPrefix(pattern, "*") {
			r.invalid(path+".paths", pattern, `a pattern that begins with / or *, such as "/search/*"`)
		}
		rule.Paths = append(rule.Paths, policy.PathCost{Pattern: pattern, Cost: r.count(path+".paths."+pattern, c.Paths[pattern], 1, rule.Max, 1)})
	}
	s.parts = append(s.parts, fmt.Sprintf("cost: up to %d", rule.Max))
	return rule
}

// sortedKeys returns the keys of a map in order.
func sortedKeys(m map[string]string) []string {
	keys := []string{}
	for key := range m {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}

// checkCosts checks that each bucket can pay the highest cost.
func checkCosts(r *problems, rules *policy.Rules) {
	if rules.Cost == nil {
		return
	}
	highest := int64(1)
	if rules.Cost.Header != "" {
		highest = rules.Cost.Max
	}
	for _, n := range rules.Cost.Methods {
		if n > highest {
			highest = n
		}
	}
	for _, one := range rules.Cost.Paths {
		if one.Cost > highest {
			highest = one.Cost
		}
	}
	check := func(path string, limit *ratelimit.Limit) {
		if limit != nil && ratelimit.Capacity(limit) < highest {
			r.add(fmt.Sprintf("%s.capacity: %d is less than the cost %d that a request may have, so that it could never pass; write at least %d, or a lower cost",
				path, ratelimit.Capacity(limit), highest, highest))
		}
	}
	check("rateLimit", rules.Own)
	for _, one := range rules.Limits {
		check("rateLimit.limits."+one.Name, one.Limit)
	}
	for _, one := range rules.Tiers {
		check("rateLimit.tiers."+one.Name, one.Limit)
	}
}

// clientAddress returns the function that returns the address which clientIPs are compared with: that of the key source if it is an address,
// and that of the connection otherwise.
func clientAddress(source identity.Source) func(*http.Request) netip.Addr {
	only := identity.Source{Depth: source.Depth, Excluded: source.Excluded}
	key := identity.KeyOf(only)
	return func(r *http.Request) netip.Addr {
		text := key(r)
		address, _ := netip.ParseAddr(text[strings.IndexByte(text, ':')+1:])
		return address.Unmap().WithZone("")
	}
}
