package policy

import (
	"net/http"

	"github.com/resilient-gateway/resilience/identity"
	"github.com/resilient-gateway/resilience/ratelimit"
)

// Decision is what a request's facts decide. It is immutable and may be shared by all requests with the same facts.
type Decision struct {
	Plan    *ratelimit.Plan
	Denied  string // the rule that denies the request: a tier's name, or missingSource; "": none
	Charges []Charge
}

// Charge is a draw that is taken back unless the answer has one of the statuses.
type Charge struct {
	Draw     int // index in the plan's draws
	Statuses Statuses
}

// Identity returns the identity of a request: all that its decision depends on.
func (route *Route) Identity(r *http.Request) string { return route.factsOf(r).text() }

// Resolve returns the decision on a request. Requests with the same identity have equal decisions.
func (route *Route) Resolve(r *http.Request) *Decision {
	f := route.factsOf(r)
	d := &Decision{Plan: &ratelimit.Plan{Own: route.rules.Own}}
	tier := route.tierOf(f)
	if tier != nil && tier.Deny {
		d.Denied = tier.Name
		return d
	}
	if tier != nil && tier.Unlimited {
		return d
	}
	if !route.drawOwn(d, f, tier) {
		d.Denied = missingSource
		return d
	}
	for i := range route.limits {
		if !route.drawLimit(d, f, &route.limits[i]) {
			d.Denied = missingSource
			return d
		}
	}
	route.penalise(d, f)
	d.Plan.Fast = !route.rules.Shown && len(d.Charges) == 0 && route.isFast(d.Plan.Draws)
	return d
}

// penalise puts the client under the penalty. A request without the block's key source that no limit of that source counts has no client.
func (route *Route) penalise(d *Decision, f *facts) {
	if route.rules.Penalty == nil || len(d.Plan.Draws) == 0 {
		return
	}
	key, ok := route.keyOf(f, 0)
	if !ok {
		return
	}
	d.Plan.Penalty = route.rules.Penalty
	d.Plan.Client = PenaltyKey(key)
}

// PenaltyKey returns the key of a client's penalty in Redis, without the prefix of all keys.
func PenaltyKey(client string) string { return "penalty:" + identity.Name(client) }

// missingSource is the rule that denies requests without their key source.
const missingSource = "missingSource"

// tierOf returns the first tier that matches, or nil.
func (route *Route) tierOf(f *facts) *TierRule {
	for i, match := range route.tiers {
		if f.holds[match] {
			return &route.rules.Tiers[i]
		}
	}
	return nil
}

// drawOwn adds the draws of the block's own key source. It reports false if the request lacks the source, which denies it.
func (route *Route) drawOwn(d *Decision, f *facts, tier *TierRule) bool {
	levels := route.own
	if tier != nil {
		levels = route.shared
	}
	if levels == nil && tier == nil {
		return true
	}
	key, ok := route.keyOf(f, 0)
	if !ok {
		return route.sources[0].criterion.Missing != identity.MissingDeny
	}
	if tier != nil {
		own := ratelimit.NewLevels([]ratelimit.NamedLimit{{Name: tier.Name, Limit: tier.Limit}})
		d.add("limit:"+tier.Name+":"+identity.Hashed(key), own, f.cost)
	}
	if levels != nil {
		d.add("bucket:"+identity.Name(key), levels, f.cost)
	}
	return true
}

// drawLimit adds the draw of a limit with its own bucket value. It reports false if the request lacks its source, which denies it.
func (route *Route) drawLimit(d *Decision, f *facts, one *limit) bool {
	if one.match != alwaysMatches && !f.holds[one.match] {
		return true
	}
	key := keyOfAll(one.name)
	if one.source >= 0 {
		client, ok := route.keyOf(f, one.source)
		if !ok {
			return route.sources[one.source].criterion.Missing != identity.MissingDeny
		}
		key = "limit:" + one.name + ":" + identity.Hashed(client)
	}
	if !one.charge.Empty() {
		d.Charges = append(d.Charges, Charge{Draw: len(d.Plan.Draws), Statuses: one.charge})
	}
	d.add(key, one.levels, f.cost)
	d.Plan.Draws[len(d.Plan.Draws)-1].Everybody = one.source < 0
	return true
}

func (d *Decision) add(key string, levels *ratelimit.Levels, cost int64) {
	d.Plan.Draws = append(d.Plan.Draws, ratelimit.Draw{Key: key, Levels: levels, Cost: cost})
}

// keyOf returns the key of a source. It reports false if the request lacks the source, and no bucket stands in for it.
func (route *Route) keyOf(f *facts, source int) (string, bool) {
	id := f.ids[source]
	if id == "" && route.sources[source].criterion.Derived() {
		return "", false
	}
	key := route.sources[source].key
	id = key(id) // not among several values, where the interpreter loses it (R43)
	return id, true
}

// KeyOf returns the key of a request's client for a limit that has another key source than the block, and "" for any other.
func (route *Route) KeyOf(name string, r *http.Request) string {
	for i := range route.limits {
		one := &route.limits[i]
		if one.name == name && one.source > 0 {
			id, key := route.sources[one.source].id, route.sources[one.source].key
			return key(id(r))
		}
	}
	return ""
}

// isFast reports whether the fast path may decide by the lease of the first draw and the route's common draw.
func (route *Route) isFast(draws []ratelimit.Draw) bool {
	if len(draws) == 0 || draws[0].Cost != 1 {
		return false
	}
	if len(draws) == 1 {
		return route.common.Levels == nil
	}
	return len(draws) == 2 && route.common.Levels != nil && draws[1].Key == route.common.Key
}
