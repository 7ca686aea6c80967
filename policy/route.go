package policy

import (
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"github.com/resilient-gateway/resilience/identity"
	"github.com/resilient-gateway/resilience/ratelimit"
)

// Rules are what a configuration says about a route. They do not change once they are given to NewRoute.
type Rules struct {
	Source identity.Source  // the block's key source
	Own    *ratelimit.Limit // the block's own limit; nil: it has none
	Limits []LimitRule
	Tiers  []TierRule // the first that matches applies
	Cost   *CostRule  // nil: every request costs 1
	// Penalty is that of a client by the block's key source; nil: none.
	Penalty *ratelimit.Penalty
}

// LimitRule is a further limit.
type LimitRule struct {
	Name   string
	Limit  *ratelimit.Limit
	Source *identity.Source // nil: the block's
	Match  Match
	Charge Statuses // empty: every request is charged
}

// TierRule replaces the block's own limit for the requests that it matches.
type TierRule struct {
	Name      string
	Match     Match
	Limit     *ratelimit.Limit // nil: unlimited, or denied
	Unlimited bool             // none of the limits applies
	Deny      bool
}

// CostRule says how many tokens a request takes, from 1 to Max.
type CostRule struct {
	Header  string // of the request; "": none
	Max     int64
	Methods map[string]int64
	Paths   []PathCost // the first that matches counts
}

// PathCost is the cost of the requests whose path matches a pattern.
type PathCost struct {
	Pattern string
	Cost    int64
}

// Route is the compiled rules of a route. It is immutable and safe for concurrent use.
type Route struct {
	rules   Rules
	sources []source // the block's first
	matches []*holder
	limits  []limit
	tiers   []int // index of each tier's match in matches
	cost    *cost
	own     *ratelimit.Levels // the block's own limit and the limits that share its bucket value
	shared  *ratelimit.Levels // these limits without the block's own; nil: there are none
	common  ratelimit.Draw    // of the limit for everybody that applies to all requests; no Levels: there is none
	simple  bool              // the identity of the block's source is the whole identity
	client  func(*http.Request) netip.Addr
}

// source is a key source, and how a request's identity and key come from it.
type source struct {
	criterion identity.Source
	id        func(*http.Request) string
	key       func(id string) string
	all       bool
}

// limit is a further limit with its own bucket value.
type limit struct {
	name   string
	levels *ratelimit.Levels
	source int // index in sources
	match  int // index in matches; -1: all requests
	charge Statuses
}

// alwaysMatches is the match of a limit without one.
const alwaysMatches = -1

// NewRoute compiles rules. client returns the address that clientIPs are compared with.
func NewRoute(rules Rules, client func(*http.Request) netip.Addr) *Route {
	route := &Route{rules: rules, client: client}
	route.sources = []source{newSource(rules.Source)}
	together := []ratelimit.NamedLimit{}
	for _, rule := range rules.Limits {
		if rule.Source == nil && rule.Match.Empty() && rule.Charge.Empty() {
			together = append(together, ratelimit.NamedLimit{Name: rule.Name, Limit: rule.Limit})
			continue
		}
		route.addLimit(rule)
	}
	if len(together) > 0 {
		route.shared = ratelimit.NewLevels(together)
	}
	if rules.Own != nil {
		together = append(together, ratelimit.NamedLimit{Name: ratelimit.OwnLimit, Limit: rules.Own})
	}
	if len(together) > 0 {
		route.own = ratelimit.NewLevels(together)
	}
	for _, tier := range rules.Tiers {
		route.tiers = append(route.tiers, route.addMatch(tier.Match))
	}
	if rules.Cost != nil {
		route.cost = compileCost(rules.Cost)
	}
	missing := rules.Source.Missing
	route.simple = len(route.sources) == 1 && len(route.matches) == 0 && route.cost == nil &&
		missing != identity.MissingPass && missing != identity.MissingDeny
	return route
}

// addLimit adds a limit that has its own bucket value.
func (route *Route) addLimit(rule LimitRule) {
	one := limit{name: rule.Name, match: alwaysMatches, charge: rule.Charge}
	one.levels = ratelimit.NewLevels([]ratelimit.NamedLimit{{Name: rule.Name, Limit: rule.Limit}})
	if rule.Source != nil {
		if rule.Source.All {
			one.source = -1
		} else {
			route.sources = append(route.sources, newSource(*rule.Source))
			one.source = len(route.sources) - 1
		}
	}
	if !rule.Match.Empty() {
		one.match = route.addMatch(rule.Match)
	}
	if one.source < 0 && one.match == alwaysMatches && rule.Charge.Empty() && route.common.Levels == nil {
		route.common = ratelimit.Draw{Key: keyOfAll(rule.Name), Levels: one.levels, Cost: 1}
	}
	route.limits = append(route.limits, one)
}

// keyOfAll returns the key of the bucket value of a limit for everybody.
func keyOfAll(name string) string { return "limit:" + name + ":all:" }

func (route *Route) addMatch(m Match) int {
	route.matches = append(route.matches, compileMatch(&m))
	return len(route.matches) - 1
}

func newSource(s identity.Source) source {
	made := source{criterion: s, all: s.All}
	if s.Derived() {
		made.id = identity.Of(s)
		made.key = identity.BucketKey(s)
	} else {
		made.id = identity.KeyOf(s)
		made.key = func(id string) string { return id }
	}
	return made
}

// Common returns the draw of the limit for everybody, if all requests of the route are under one. Without Levels there is none.
func (route *Route) Common() ratelimit.Draw { return route.common }

// Simple reports whether requests with the same identity of the block's key source always have the same plan.
func (route *Route) Simple() bool { return route.simple }

// facts are what a request's plan depends on.
type facts struct {
	ids   []string // by source; "": the request lacks the source, and Missing says that no limit applies or that it is denied
	holds []bool   // by match
	cost  int64
}

func (route *Route) factsOf(r *http.Request) *facts {
	f := &facts{cost: 1}
	for _, one := range route.sources {
		f.ids = append(f.ids, one.id(r))
	}
	if len(route.matches) > 0 {
		host, client := identity.HostName(r.Host), route.client(r)
		for _, match := range route.matches {
			f.holds = append(f.holds, match.holds(r, host, client))
		}
	}
	if route.cost != nil {
		f.cost = route.cost.of(r)
	}
	return f
}

// text returns the facts as one text. Different facts have different texts, and a text is never long.
func (f *facts) text() string {
	parts := []string{}
	for _, id := range f.ids {
		parts = append(parts, strconv.Itoa(len(id)), ":", id)
	}
	for _, holds := range f.holds {
		if holds {
			parts = append(parts, "+")
		} else {
			parts = append(parts, "-")
		}
	}
	parts = append(parts, strconv.FormatInt(f.cost, 10))
	text := strings.Join(parts, "")
	if len(text) > 128 {
		return identity.Hash(text)
	}
	return text
}
