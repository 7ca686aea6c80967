package policy

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/resilient-gateway/resilience/identity"
	"github.com/stretchr/testify/require"
)

func TestResolve(t *testing.T) {
	all := identity.Source{All: true}
	key := identity.Source{Header: "X-Key"}
	deny := identity.Source{Header: "X-Key", Missing: identity.MissingDeny}
	pass := identity.Source{Header: "X-Key", Missing: identity.MissingPass}
	login := Match{Paths: []string{"/login"}}
	failed := Statuses{Ranges: []StatusRange{{401, 401}}}
	hourly := LimitRule{Name: "hourly", Limit: tokens(50)}
	everyone := LimitRule{Name: "everyone", Limit: tokens(500), Source: &all}
	partners := TierRule{Name: "partners", Match: Match{ClientIPs: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}}, Limit: tokens(70)}
	internal := TierRule{Name: "internal", Match: Match{ClientIPs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}, Unlimited: true}
	banned := TierRule{Name: "banned", Match: Match{Headers: map[string]string{"User-Agent": "*badbot*"}}, Deny: true}
	const client, partner = "ip:192.0.2.1", "ip:203.0.113.7"
	const own = "bucket:" + client + "/default/1"
	const common = "limit:everyone:all:/everyone/1"
	for _, row := range []struct {
		name    string
		rules   Rules
		request string
		want    string
	}{
		{"the block's own limit", Rules{Own: tokens(5)}, "GET /", own + " fast"},
		{"limits in one value", Rules{Own: tokens(5), Limits: []LimitRule{hourly}}, "GET /", "bucket:" + client + "/default+hourly/1 fast"},
		{"no limit of the block's own", Rules{Limits: []LimitRule{hourly}}, "GET /", "bucket:" + client + "/hourly/1 fast"},
		{"only a limit for everybody", Rules{Limits: []LimitRule{everyone}}, "GET /", common},
		{"a limit for everybody", Rules{Own: tokens(5), Limits: []LimitRule{everyone}}, "GET /", own + " " + common + " fast"},
		{"what is shown", Rules{Own: tokens(5), Limits: []LimitRule{everyone}, Shown: true}, "GET /", own + " " + common},
		{"two limits for everybody", Rules{Own: tokens(5), Limits: []LimitRule{everyone, {Name: "too", Limit: tokens(9), Source: &all}}}, "GET /",
			own + " " + common + " limit:too:all:/too/1"},
		{"a limit for everybody that applies to some", Rules{Own: tokens(5), Limits: []LimitRule{{Name: "some", Limit: tokens(9), Source: &all, Match: login}}},
			"GET /login", own + " limit:some:all:/some/1"},
		{"and to no others", Rules{Own: tokens(5), Limits: []LimitRule{{Name: "some", Limit: tokens(9), Source: &all, Match: login}}}, "GET /", own + " fast"},
		{"another source", Rules{Own: tokens(5), Limits: []LimitRule{{Name: "key", Limit: tokens(9), Source: &key}}}, "GET / | X-Key: a",
			own + " limit:key:" + hashed("header:a") + "/key/1"},
		{"another source, missing", Rules{Own: tokens(5), Limits: []LimitRule{{Name: "key", Limit: tokens(9), Source: &key}}}, "GET /",
			own + " limit:key:" + hashed("none:") + "/key/1"},
		{"another source, missing, pass", Rules{Own: tokens(5), Limits: []LimitRule{{Name: "key", Limit: tokens(9), Source: &pass}}}, "GET /", own + " fast"},
		{"another source, missing, deny", Rules{Own: tokens(5), Limits: []LimitRule{{Name: "key", Limit: tokens(9), Source: &deny}}}, "GET /",
			"denied by missingSource"},
		{"missing, deny, where the limit does not apply", Rules{Own: tokens(5), Limits: []LimitRule{{Name: "key", Limit: tokens(9), Source: &deny, Match: login}}},
			"GET /", own + " fast"},
		{"the block's source, missing, deny", Rules{Source: deny, Own: tokens(5), Limits: []LimitRule{everyone}}, "GET /", "denied by missingSource"},
		{"the block's source, missing, pass", Rules{Source: pass, Own: tokens(5), Limits: []LimitRule{hourly, everyone}}, "GET /", common},
		{"the block's source, present", Rules{Source: pass, Own: tokens(5), Limits: []LimitRule{hourly}}, "GET / | X-Key: a", "bucket:header:a/default+hourly/1 fast"},
		{"a match", Rules{Own: tokens(5), Limits: []LimitRule{{Name: "logins", Limit: tokens(9), Match: login}}}, "GET /login",
			own + " limit:logins:" + hashed(client) + "/logins/1"},
		{"charged by status", Rules{Own: tokens(5), Limits: []LimitRule{{Name: "logins", Limit: tokens(9), Charge: failed}}}, "GET /",
			own + " limit:logins:" + hashed(client) + "/logins/1 charge 1"},
		{"a cost", Rules{Own: tokens(5), Limits: []LimitRule{hourly, everyone}, Cost: &CostRule{Methods: map[string]int64{"POST": 4}}}, "POST /",
			"bucket:" + client + "/default+hourly/4 limit:everyone:all:/everyone/4"},
		{"a cost of 1", Rules{Own: tokens(5), Cost: &CostRule{Methods: map[string]int64{"POST": 4}}}, "GET /", own + " fast"},

		{"no tier", Rules{Own: tokens(5), Tiers: []TierRule{banned, internal, partners}}, "GET /", own + " fast"},
		{"a tier with numbers", Rules{Own: tokens(5), Tiers: []TierRule{banned, internal, partners}}, "GET / | from 203.0.113.7:1",
			"limit:partners:" + hashed(partner) + "/partners/1 fast"},
		{"a tier and further limits", Rules{Own: tokens(5), Limits: []LimitRule{hourly, everyone}, Tiers: []TierRule{partners}}, "GET / | from 203.0.113.7:1",
			"limit:partners:" + hashed(partner) + "/partners/1 bucket:" + partner + "/hourly/1 " + common},
		{"a tier without a limit of the block's own", Rules{Limits: []LimitRule{everyone}, Tiers: []TierRule{partners}}, "GET / | from 203.0.113.7:1",
			"limit:partners:" + hashed(partner) + "/partners/1 " + common + " fast"},
		{"unlimited", Rules{Own: tokens(5), Limits: []LimitRule{hourly, everyone}, Tiers: []TierRule{internal}}, "GET / | from 10.0.0.1:1", ""},
		{"unlimited without the source", Rules{Source: deny, Own: tokens(5), Tiers: []TierRule{internal}}, "GET / | from 10.0.0.1:1", ""},
		{"denied", Rules{Own: tokens(5), Tiers: []TierRule{banned}}, "GET / | User-Agent: badbot", "denied by banned"},
		{"the first of two tiers", Rules{Own: tokens(5), Tiers: []TierRule{banned, internal}}, "GET / | User-Agent: badbot | from 10.0.0.1:1", "denied by banned"},
		{"the first of two tiers, the other way round", Rules{Own: tokens(5), Tiers: []TierRule{internal, banned}}, "GET / | User-Agent: badbot | from 10.0.0.1:1", ""},
		{"a tier for the rest", Rules{Own: tokens(5), Tiers: []TierRule{banned, {Name: "rest", Limit: tokens(9)}}}, "GET /",
			"limit:rest:" + hashed(client) + "/rest/1 fast"},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			route := NewRoute(row.rules, connection)
			require.Equal(t, row.want, shown(route.Resolve(asked(row.request))))
			require.Equal(t, row.want, shown(route.Resolve(asked(row.request))), "again")
		})
	}
}

func TestRoute_simple(t *testing.T) {
	all := identity.Source{All: true}
	for _, row := range []struct {
		name  string
		rules Rules
		want  bool
	}{
		{"one limit", Rules{Own: tokens(5)}, true},
		{"several limits of one source", Rules{Own: tokens(5), Limits: []LimitRule{{Name: "a", Limit: tokens(9)}, {Name: "b", Limit: tokens(9), Source: &all}}}, true},
		{"another source", Rules{Own: tokens(5), Limits: []LimitRule{{Name: "a", Limit: tokens(9), Source: &identity.Source{Host: true}}}}, false},
		{"a match", Rules{Own: tokens(5), Limits: []LimitRule{{Name: "a", Limit: tokens(9), Match: Match{Methods: []string{"GET"}}}}}, false},
		{"a tier", Rules{Own: tokens(5), Tiers: []TierRule{{Name: "a", Unlimited: true}}}, false},
		{"a cost", Rules{Own: tokens(5), Cost: &CostRule{}}, false},
		{"a source that may be missing", Rules{Source: identity.Source{Header: "X", Missing: identity.MissingDeny}, Own: tokens(5)}, false},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			require.Equal(t, row.want, NewRoute(row.rules, connection).Simple())
		})
	}
}

// What a client sends makes no identity long, and requests with the same facts have the same identity.
func TestIdentity_isShort(t *testing.T) {
	sources := []LimitRule{}
	for _, name := range []string{"A", "B", "C", "D"} {
		sources = append(sources, LimitRule{Name: name, Limit: tokens(9), Source: &identity.Source{Header: name}})
	}
	route := NewRoute(Rules{Own: tokens(5), Limits: sources, Tiers: []TierRule{{Name: "t", Deny: true, Match: Match{Paths: []string{"/t*"}}}}}, connection)
	value := strings.Repeat("v", 5000)
	long := "GET /" + value + " | A: " + value + " | B: " + value + " | C: " + value + " | D: " + value
	require.LessOrEqual(t, len(route.Identity(asked(long))), maxIdentity)
	require.Equal(t, route.Identity(asked(long)), route.Identity(asked(long+" | E: other")))
	require.NotEqual(t, route.Identity(asked(long)), route.Identity(asked(long+"w")))
	require.Equal(t, route.Identity(asked("GET /a | A: 1")), route.Identity(asked("PUT /b?c | A: 1 | E: 2 | from 192.0.2.1:99")))
	require.NotEqual(t, route.Identity(asked("GET /a | A: 1")), route.Identity(asked("GET /t | A: 1")))
	require.NotEqual(t, route.Identity(asked("GET /a | A: 1")), route.Identity(asked("GET /a | B: 1")))
}
