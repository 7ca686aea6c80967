package ratelimit

import (
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// Three tokens are kept back at most, and one is refilled in a second: a registration lasts 18 s and more, and the last use is 3 s before its end.
func TestRegistration_steps(t *testing.T) {
	limit := withStanding(NewLimit(300, 1, time.Second), 3)
	type row struct {
		name      string
		join      bool
		size      int64
		found     bool
		sent, now int64 // seconds
		until     int64 // of the use of standing tokens; 0: it may not use them
		permitted bool
	}
	for _, walk := range []struct {
		name string
		rows []row
	}{
		{"it joins, waits, and is confirmed", []row{
			{"there is room", false, 1, false, 0, 0, 0, false},
			{"it joins as the second", true, 2, true, 0, 1, 0, true},
			{"a renewal that was sent before the end of the wait confirms nothing", false, 2, true, 2, 4, 0, true},
			{"another one does", false, 2, true, 4, 5, 19, true},
			{"each renewal prolongs it", false, 2, true, 10, 11, 25, true},
		}},
		{"it joins as one too many", []row{
			{"", true, 4, true, 0, 1, 0, false},
			{"a renewal permits nothing", false, 3, true, 5, 6, 0, false},
		}},
		{"its registration is lost", []row{
			{"", true, 1, true, 0, 0, 0, true},
			{"", false, 1, true, 2, 2, 17, true},
			{"", false, 0, false, 5, 5, 0, false},
		}},
		{"an answer comes after the last use", []row{
			{"", true, 1, true, 0, 0, 0, true},
			{"", false, 1, true, 2, 2, 17, true},
			{"", false, 1, true, 3, 18, 0, false},
		}},
	} {
		t.Run(walk.name, func(t *testing.T) {
			g, s := gatewaysUnder(limit)
			for _, row := range walk.rows {
				answerRegistration(g, row.join, row.size, row.found, row.sent, row.now)
				require.Equal(t, row.permitted, permits(&g.own, limit), row.name)
				require.InDelta(t, row.until, float64(s.until)/1000000, 0.1, row.name)
				require.Equal(t, row.until == 0, s.until == 0, row.name)
			}
		})
	}
}

// gatewaysUnder returns what a gateway knows where a route uses a limit.
func gatewaysUnder(limit *Limit) (*gateways, *standing) {
	g := newGateways(Settings{})
	s := &standing{limit: limit, used: g.used, routes: 1}
	g.all = append(g.all, s)
	return &g, s
}

// answerRegistration applies the answer to a join, or to what a gateway sends otherwise. The times are seconds.
func answerRegistration(g *gateways, join bool, size int64, found bool, sent, now int64) {
	step := &registrationStep{kind: stepAsk, lasts: registrationTime(strictestLocked(g)), at: sent * second}
	if join {
		step.kind = stepJoin
		loseRegistrationLocked(g) // as it is sent
	} else if isPermittedLocked(g) {
		step.kind = stepRenew
	}
	applyFoundLocked(g, step, size, found, now*second)
}

// One registration is for all limits. The slow limit keeps back three tokens and refills one in a second: its registration lasts 18 s. The fast
// one keeps back ten, which are refilled in a second: 14 s. The narrow one keeps back one token, as fast.
func TestRegistration_ofSeveralLimits(t *testing.T) {
	slow := withStanding(NewLimit(300, 1, time.Second), 3)
	fast := withStanding(NewLimit(1000, 10, time.Second), 10)
	narrow := withStanding(NewLimit(101, 1, time.Second), 1)
	all := []*Limit{slow, fast, narrow}
	type row struct {
		name      string
		come, go_ *Limit // a route with this limit comes or goes
		join      bool
		size      int64
		sent, now int64
		until     [3]int64 // of slow, fast and narrow
		room      bool
	}
	for _, walk := range []struct {
		name string
		rows []row
	}{
		{"a join is for those limits that keep back as many tokens", []row{
			{name: "a fast and a narrow limit", come: fast},
			{come: narrow},
			{name: "it joins as the second", join: true, size: 2},
			{name: "the fast one is permitted", size: 2, sent: 1, now: 1, until: [3]int64{0, 14, 0}},
			{name: "when it is alone, it is to join again for the other one", size: 1, sent: 2, now: 2, until: [3]int64{0, 15, 0}, room: true},
			{join: true, size: 1, sent: 3, now: 3},
			{size: 1, sent: 5, now: 5, until: [3]int64{0, 18, 18}},
		}},
		{"a limit that comes needs no join", []row{
			{come: fast},
			{join: true, size: 2},
			{size: 2, sent: 1, now: 1, until: [3]int64{0, 14, 0}},
			{name: "one that refills more slowly", come: slow, until: [3]int64{0, 14, 0}},
			{name: "a renewal before its wait ends does not confirm it", size: 2, sent: 1, now: 1, until: [3]int64{0, 16, 0}},
			{name: "another one does", size: 2, sent: 3, now: 3, until: [3]int64{18, 18, 0}},
		}},
		{"one that keeps back fewer tokens than the join has found gateways has no permission", []row{
			{come: fast},
			{join: true, size: 5},
			{size: 5, sent: 1, now: 1, until: [3]int64{0, 14, 0}},
			{come: slow, until: [3]int64{0, 14, 0}},
			{size: 4, sent: 6, now: 6, until: [3]int64{0, 21, 0}},
		}},
		{"one that goes and comes again waits for a renewal", []row{
			{come: fast},
			{come: slow},
			{join: true, size: 1},
			{size: 1, sent: 2, now: 2, until: [3]int64{17, 17, 0}},
			{go_: slow, until: [3]int64{17, 17, 0}},
			{name: "it is not prolonged", size: 1, sent: 8, now: 8, until: [3]int64{17, 21, 0}},
			{come: slow, until: [3]int64{17, 21, 0}},
			{size: 1, sent: 9, now: 9, until: [3]int64{24, 24, 0}},
		}},
	} {
		t.Run(walk.name, func(t *testing.T) {
			g := newGateways(Settings{})
			l := &Limiter{Settings: Settings{Gateways: "gateways", Store: &tripStore{}}, gateways: g}
			for i, row := range walk.rows {
				switch {
				case row.come != nil:
					standUnderLocked(l, row.come)
				case row.go_ != nil:
					standingOfLocked(&l.gateways, row.go_).routes--
				default:
					answerRegistration(&l.gateways, row.join, row.size, true, row.sent, row.now)
				}
				for j, limit := range all {
					until := int64(0)
					if s := standingOfLocked(&l.gateways, limit); s != nil {
						until = s.until
					}
					require.InDelta(t, row.until[j], float64(until)/1000000, 0.1, "row %d: %s: limit %d", i, row.name, j)
				}
				require.Equal(t, row.room, l.gateways.own.room, "row %d: %s", i, row.name)
			}
		})
	}
}

// joins returns how many joins a registry has seen.
func joins(server *redistest.Server) int64 {
	counts := strings.Fields(server.Text("GET", "test:{name}:gateways:count"))
	return number(counts[1]) - number(counts[2])
}

// A reload makes a cache for each route, in any order. None of them costs a join where the join before permits the limit.
func TestRegistration_ofReloads(t *testing.T) {
	server := redistest.Start(t)
	limit, other := WithStanding(NewLimit(1000, 100, time.Second)), WithStanding(NewLimit(2000, 50, time.Second))
	cache := standingGateway(t, newStore(t, server.Addr()), limit, headers)
	startStanding(t, []*Cache{cache}, 1)
	l := cache.limiter
	require.True(t, stands(NewCache(l, limit, time.Second, headers)))

	second := NewCache(l, other, time.Second, headers)
	require.True(t, stands(cache), "the old routes serve for a while")
	eventually(t, func() bool { return stands(second) })
	for i := 0; i < 6; i++ {
		limits := []*Limit{limit, other}
		for j := range limits {
			require.True(t, stands(NewCache(l, limits[(i+j)%2], time.Second, headers)))
		}
	}
	require.False(t, stands(NewCache(l, NewLimit(2000, 100, time.Second), time.Second, headers)), "without standing leases")
	require.True(t, stands(cache))
	require.Equal(t, int64(1), joins(server))
}

// A gateway stays registered while a route uses a limit that has standing leases. A request under plans uses none.
func TestRegistration_ofRoutes(t *testing.T) {
	c := &clock{}
	l := New(Settings{Store: &tripStore{}, Gateways: "gateways", Now: c.now})
	limit, other := WithStanding(NewLimit(1000, 100, time.Second)), NewLimit(100, 100, time.Second)
	come := func(limit *Limit) func() { return func() { NewCache(l, limit, time.Second, headers) } }
	release := func(limit *Limit) func() { return func() { ReleaseLimit(l, limit) } }
	for i, row := range []struct {
		change func()
		kind   string // of the call that is due; "": none
	}{
		{func() {}, ""},
		{come(other), ""},
		{come(limit), stepAsk},
		{func() { findRoomLocked(&l.gateways, 0, 0) }, stepJoin},
		{func() { l.gateways.own.size = 1 }, stepRenew},
		{come(limit), stepRenew},
		{release(limit), stepRenew},
		{release(other), stepRenew},
		{func() { NewPlanCache(l, Draw{}, time.Second) }, stepRenew},
		{release(limit), ""},
		{come(limit), stepRenew},
		{func() { l.gateways.own.size = 0 }, stepAsk},
		{release(limit), ""},
	} {
		c.advance(3600 * second)
		row.change()
		step := nextRegistrationStep(l)
		require.Equal(t, row.kind, step.kind, "row %d", i)
		require.Equal(t, row.kind != "", step.call != nil, "row %d", i)
	}
}

// A gateway whose registration is not known any more finds room before it has ended, which takes 14 s here: it is its own.
func TestRegistration_joinsAgainSoon(t *testing.T) {
	server := redistest.Start(t)
	cache := standingGateway(t, newStore(t, server.Addr()), withStanding(NewLimit(101, 1, time.Second), 1), headers)
	startStanding(t, []*Cache{cache}, 1)
	cache.lock.Lock()
	loseRegistrationLocked(&cache.limiter.gateways)
	cache.limiter.gateways.own.due = 0
	cache.lock.Unlock()
	eventually(t, func() bool { return stands(cache) })
	require.Len(t, server.Do("ZRANGE", "test:{name}:gateways", "0", "-1"), 1)
	require.Equal(t, int64(2), joins(server))
}

// What is owed under a limit that no route uses any more is reported under the one that has replaced it.
func TestStanding_owedUnderAnotherLimit(t *testing.T) {
	limits := []*Limit{WithStanding(NewLimit(1000, 100, time.Second)), WithStanding(NewLimit(2000, 50, time.Second)), WithStanding(NewLimit(3000, 50, time.Second))}
	for _, row := range []struct {
		name          string
		routes        []int    // that use each limit
		until         int64    // of the first one
		owed, becomes []string // under each limit
	}{
		{"it is in use", []int{1, 1, 0}, 0, []string{"a", "b", ""}, []string{"a", "b", ""}},
		{"its registration has not ended", []int{0, 1, 0}, 10, []string{"a", "", ""}, []string{"a", "", ""}},
		{"it was replaced", []int{0, 1, 0}, 5, []string{"a", "b", ""}, []string{"", "ba", ""}},
		{"it may have been replaced by any of two", []int{0, 1, 1}, 0, []string{"a", "", ""}, []string{"a", "", ""}},
		{"by none", []int{0, 0, 0}, 0, []string{"a", "", ""}, []string{"a", "", ""}},
	} {
		l := newLimiter(nil)
		l.Unavailable.Store(false)
		for i, limit := range limits {
			s := &standing{limit: limit, used: l.gateways.used, routes: row.routes[i], from: 100}
			if row.owed[i] != "" {
				s.owed = []string{row.owed[i]}
			}
			l.gateways.all = append(l.gateways.all, s)
		}
		l.gateways.all[0].until = row.until
		repeatOwedLocked(l, 5)
		for i, s := range l.gateways.all {
			require.Equal(t, row.becomes[i], strings.Join(s.owed, ""), "%s: limit %d", row.name, i)
		}
	}
}
