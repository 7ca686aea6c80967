//go:build !yaegi

package resilience

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// Any set of sources, limits, tiers and the rest works as documented, or is refused with a reason that is documented. The configurations and
// requests are random; combinations_model_test.go says what must come of them.

// dice makes configurations and requests.
type dice struct {
	*rand.Rand
	small bool // buckets have at most 100 tokens and hardly refill
	large bool // buckets have more, of which gateways lease some, and hardly refill
}

func (d dice) chance(percent int) bool { return d.Intn(100) < percent }

func (d dice) one(texts ...string) string { return texts[d.Intn(len(texts))] }

// some returns one or two of the texts.
func (d dice) some(texts ...string) []string {
	first := d.Intn(len(texts))
	if d.chance(60) {
		return texts[first : first+1]
	}
	return []string{texts[first], texts[(first+1)%len(texts)]}
}

func (d dice) numbers() (capacity, rate, period string) {
	if d.large {
		return strconv.Itoa(200 + d.Intn(600)), d.one("1", "2"), d.one("12h", "24h")
	}
	if d.small {
		return strconv.Itoa(2 + d.Intn(12)), d.one("1", "2", "3"), d.one("1h", "2h", "3h")
	}
	return strconv.Itoa(1 + d.Intn(12)), strconv.Itoa(1 + d.Intn(9)), d.one("", "1s", "1m", "700ms", "3s", "1h")
}

func (d dice) source() *SourceCriterionConfig {
	c := &SourceCriterionConfig{}
	if d.chance(20) {
		c.All = "true"
		if d.chance(3) {
			c.RequestHost = "true"
		}
		return c
	}
	for parts := 1 + d.Intn(2); parts > 0; parts-- {
		switch d.Intn(8) {
		case 0:
			c.IPStrategy = &IPStrategyConfig{IPv6Subnet: d.one("", "64")}
			if d.chance(40) {
				c.IPStrategy.Depth = d.one("1", "2")
			} else if d.chance(50) {
				c.IPStrategy.ExcludedIPs = d.some("10.0.0.0/8", "192.0.2.1", "2001:db8::/32")
			}
		case 1:
			c.RequestHeaderName = d.one("X-Key", "x-key", "X-Key, X-Other")
		case 2:
			c.RequestHost = "true"
		case 3:
			c.RequestMethod = "true"
		case 4:
			c.RequestPath = d.one("/api/{tenant}/*", "/{a}/{b}", "/api/{tenant}", "/*/{last}")
		case 5:
			c.RequestCookieName = "session"
		case 6:
			c.RequestQueryName = "tenant"
		case 7:
			c.RequestJWTClaim = d.one("sub", "org.id", "roles")
		}
	}
	if d.chance(60) && !alwaysThere(c) || d.chance(2) {
		c.MissingSource = d.one("shared", "address", "pass", "deny")
	}
	return c
}

// alwaysThere reports whether no request lacks the source.
func alwaysThere(c *SourceCriterionConfig) bool {
	named := c.RequestHeaderName + c.RequestPath + c.RequestCookieName + c.RequestQueryName + c.RequestJWTClaim
	forwarded := c.IPStrategy != nil && (c.IPStrategy.Depth != "" || len(c.IPStrategy.ExcludedIPs) > 0)
	return named == "" && c.RequestHost == "" && !forwarded
}

func (d dice) match() *MatchConfig {
	c := &MatchConfig{}
	for parts := 1 + d.Intn(2); parts > 0; parts-- {
		switch d.Intn(5) {
		case 0:
			c.Paths = d.some("/login", "/api/*", "*", "/*me*", "/search")
		case 1:
			c.Methods = d.some("GET", "POST", "PUT")
		case 2:
			c.Hosts = d.some("a.example", "*.EXAMPLE", "b.example")
		case 3:
			c.Headers = map[string]string{d.one("X-Tier", "x-key"): d.one("*", "gold", "g*", "a")}
		case 4:
			c.ClientIPs = d.some("192.0.2.0/24", "192.0.2.1", "2001:db8::/32", "10.0.0.0/8")
		}
	}
	if d.chance(2) {
		c = &MatchConfig{}
	}
	return c
}

func (d dice) config() *RateLimitConfig {
	c := &RateLimitConfig{}
	c.Capacity, c.RefillRate, c.RefillPeriod = d.numbers()
	if d.chance(70) {
		c.SourceCriterion = d.source()
	}
	limits := d.Intn(5)
	if limits > 0 && d.chance(30) && !d.small {
		c.Capacity, c.RefillRate = "", ""
	}
	for i := 0; i < limits; i++ {
		one := &LimitConfig{}
		if d.chance(90) || c.Capacity == "" {
			one.Capacity, one.RefillRate, one.RefillPeriod = d.numbers()
		}
		if d.chance(45) {
			one.SourceCriterion = d.source()
		}
		if d.chance(35) {
			one.Match = d.match()
		}
		if d.chance(20) {
			one.ChargeStatus = d.one("401,403", "400-499", "200", "500-599, 404")
		}
		if c.Limits == nil {
			c.Limits = map[string]*LimitConfig{}
		}
		c.Limits[[]string{"l0", "l-1", "L2", "zz_3"}[i]] = one
	}
	for i := d.Intn(4); i > 0; i-- {
		one := &TierConfig{Match: d.match(), Priority: d.one("", "1", "10", "-1")}
		switch d.Intn(4) {
		case 0:
			one.Unlimited = "true"
		case 1:
			one.Deny = "true"
		default:
			one.Capacity, one.RefillRate, one.RefillPeriod = d.numbers()
		}
		if d.chance(2) {
			one.Match = nil
		}
		if c.Tiers == nil {
			c.Tiers = map[string]*TierConfig{}
		}
		c.Tiers[fmt.Sprintf("t%d", i)] = one
	}
	if d.chance(25) {
		c.Cost = d.cost(c)
	}
	if d.chance(15) {
		c.DryRun = "true"
	}
	if d.chance(50) {
		c.ResponseHeaders, c.ResponseHeadersOn = d.one("ratelimit", "x-ratelimit", "both"), d.one("", "always", "refused")
	}
	if d.chance(20) && !d.small && (c.SourceCriterion == nil || c.SourceCriterion.All == "" || d.chance(10)) {
		c.Penalty = &PenaltyConfig{Refusals: d.one("1", "3", "5"), Time: d.one("1s", "30s", ""), MaxTime: d.one("", "2m")}
	}
	if d.chance(10) {
		c.MaxDelay = "0s"
	}
	return c
}

// cost returns a cost block, mostly with costs that all capacities can pay.
func (d dice) cost(c *RateLimitConfig) *CostConfig {
	most := smallestCapacity(c)
	if d.chance(3) {
		most += 2
	}
	n := func() string { return strconv.FormatInt(1+d.Int63n(most), 10) }
	cost := &CostConfig{Max: strconv.FormatInt(most, 10)}
	if d.chance(60) {
		cost.Header = d.one("X-Cost", "x-cost")
	}
	if d.chance(50) {
		cost.Methods = map[string]string{"POST": n()}
	}
	if d.chance(50) || cost.Header == "" && cost.Methods == nil {
		cost.Paths = map[string]string{"/search": n(), "/s*": n(), "*": n()}
	}
	return cost
}

func smallestCapacity(c *RateLimitConfig) int64 {
	m := newModel(c)
	smallest := int64(1 << 60)
	for _, one := range append(append([]*modelLimit{m.own}, m.limits...), m.tiers...) {
		if one != nil && !one.unlimited && !one.deny && one.capacity < smallest {
			smallest = one.capacity
		}
	}
	return smallest
}

// answers returns how refusals look.
func (d dice) answers() *AnswersConfig {
	switch d.Intn(4) {
	case 0:
		return nil
	case 1:
		return &AnswersConfig{Format: "problem"}
	case 2:
		return &AnswersConfig{RateLimited: &AnswerConfig{Status: "420", Body: "{limit}|{retryAfter}", ContentType: "text/plain"}}
	}
	return &AnswersConfig{RateLimited: &AnswerConfig{Body: "{limit}|{retryAfter}", Headers: map[string]string{"X-Reason": "limit"}}, Denied: &AnswerConfig{Status: "410"}}
}

func (d dice) token() string {
	payload := d.one(`{"sub":"ann"}`, `{"sub":"bob","org":{"id":7}}`, `{"org.id":"x","org":{"id":7}}`, `{"roles":["a","b"]}`, `{"sub":true}`, `{"sub":""}`)
	return "Bearer e30." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".c2ln"
}

func (d dice) request() *http.Request {
	r := httptest.NewRequest(d.one("GET", "GET", "POST", "PUT", "PROPFIND"), d.one("/", "/login", "/api/acme/orders", "/api/acme", "/api/ac%6de", "/api/a%2Fb",
		"/api/acme;v=1/x", "/search", "/api//x", "/api/acme/../x", "/search/a")+d.one("", "", "?tenant=a", "?tenant=b&x=1", "?tenant=%61", "?tenant=a&tenant=b", "?tenant="), nil)
	r.Host = d.one("a.example", "b.example:8080", "B.Example.", "a.example:443", "other")
	r.RemoteAddr = d.one("192.0.2.1:1", "192.0.2.1:2", "192.0.2.2:1", "10.0.0.1:9", "[2001:db8::1]:1", "[2001:db8::2]:1")
	add := func(percent int, name string, values ...string) {
		if d.chance(percent) {
			r.Header.Add(name, d.one(values...))
		}
	}
	add(60, "X-Key", "a", "b", "")
	add(10, "X-Key", "c", "a")
	add(40, "X-Other", "a", "b")
	add(40, "X-Tier", "gold", "silver")
	add(50, "X-Cost", "1", "2", "3", "9", "x", "-1", " 2")
	// Traefik joins several lines of X-Forwarded-For.
	add(40, "X-Forwarded-For", "198.51.100.7", "198.51.100.7, 10.1.1.1", "2001:db8::9", "10.0.0.3, 192.0.2.1")
	add(50, "Cookie", "session=a", "session=b; x=1", "session=%61", `session="a"`, "session=a; session=b", "session=a; session=a", "session=")
	if d.chance(50) {
		r.Header.Add("Authorization", d.token())
	}
	if d.chance(5) {
		r.Header.Add("Authorization", d.token())
	}
	return r
}

// reasons returns what the documentation says is wrong with a configuration, each as a part of the error.
func reasons(c *RateLimitConfig) (all []string) {
	checkSource := func(path string, s *SourceCriterionConfig) {
		if s == nil {
			return
		}
		if s.All == "true" && s.RequestHost == "true" {
			all = append(all, path+".sourceCriterion: all gives all requests one bucket, and excludes requestHost")
		} else if s.MissingSource != "" && s.MissingSource != "shared" && (alwaysThere(s) || s.All == "true") {
			all = append(all, path+`.sourceCriterion.missingSource: "`+s.MissingSource+`" has no effect`)
		}
	}
	checkMatch := func(path string, m *MatchConfig) {
		if m != nil && len(m.Paths)+len(m.Methods)+len(m.Hosts)+len(m.Headers)+len(m.ClientIPs) == 0 {
			all = append(all, path+".match: it names nothing")
		}
	}
	m := newModel(c)
	checkSource("rateLimit", c.SourceCriterion)
	for name, one := range c.Limits {
		checkSource("rateLimit.limits."+name, one.SourceCriterion)
		checkMatch("rateLimit.limits."+name, one.Match)
		if one.Capacity+one.RefillRate+one.RefillPeriod+one.ChargeStatus == "" && one.SourceCriterion == nil && one.Match == nil && m.own != nil {
			all = append(all, "rateLimit.limits."+name+": it changes nothing")
		}
	}
	before := map[string]bool{}
	for _, tier := range m.tiers {
		path := "rateLimit.tiers." + tier.name
		checkMatch(path, tier.match)
		text := ""
		if tier.match != nil {
			text = fmt.Sprintf("%q %q %q", sortedTexts(tier.match.Paths), sortedTexts(tier.match.Methods), strings.ToLower(fmt.Sprint(sortedTexts(tier.match.Hosts))))
			text += fmt.Sprintf("%q %q", strings.ToLower(fmt.Sprint(tier.match.Headers)), sortedTexts(tier.match.ClientIPs))
		}
		switch {
		case before[""]:
			all = append(all, path+": it can never apply")
		case before[text]:
			all = append(all, path+": it can never apply")
		}
		before[text] = true
	}
	if c.Cost != nil {
		highest := int64(1)
		if c.Cost.Header != "" {
			highest = numberOf(c.Cost.Max, 100)
		}
		for _, costs := range []map[string]string{c.Cost.Methods, c.Cost.Paths} {
			for _, cost := range costs {
				if numberOf(cost, 1) > highest {
					highest = numberOf(cost, 1)
				}
			}
		}
		if smallestCapacity(c) < highest {
			all = append(all, "is less than the cost")
		}
	}
	if c.Penalty != nil && c.SourceCriterion != nil && c.SourceCriterion.All == "true" {
		all = append(all, "rateLimit.penalty: all requests are one client")
	}
	return all
}

func sortedTexts(texts []string) []string {
	set := map[string]string{}
	for _, text := range texts {
		set[text] = ""
	}
	return sortedKeys(set)
}

// described returns a configuration and the requests so far as text.
func described(c *RateLimitConfig, answers *AnswersConfig) string {
	text, _ := json.Marshal(c)
	more, _ := json.Marshal(answers)
	return string(text) + "\nanswers " + string(more)
}

func describedRequest(r *http.Request) string {
	header, _ := json.Marshal(r.Header)
	return r.Method + " " + r.URL.String() + " host " + r.Host + " from " + r.RemoteAddr + " " + string(header)
}

// trial is one configuration, and what it is tried in.
type trial struct {
	dice
	redis    *RedisConfig
	now      func() int64
	advance  func(time.Duration)
	requests int
	seen     map[string]int // rulings, by kind
}

// run tries one configuration. It reports false if the configuration is refused.
func (d trial) run(t *testing.T, seed int64) bool {
	c, answers := d.config(), d.answers()
	up := &upstream{}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	handler, err := New(ctx, up, &Config{Name: fmt.Sprintf("c%d", seed), Redis: d.redis, RateLimit: c, Answers: answers}, "")
	expected := reasons(c)
	if err != nil {
		require.NotEmpty(t, expected, "seed %d: refused without a documented reason: %v\n%s", seed, err, described(c, answers))
		for _, reason := range expected {
			require.ErrorContains(t, err, reason, "seed %d", seed)
		}
		return false
	}
	require.Empty(t, expected, "seed %d: not refused\n%s", seed, described(c, answers))
	m := newModel(c)
	if d.redis != nil {
		m.slack = 3000000
	}
	log := ""
	usual := []*http.Request{d.request(), d.request(), d.request()} // so that some buckets are emptied
	for i := 0; i < d.requests; i++ {
		if d.chance(25) && d.advance != nil {
			step := time.Duration([]int64{1000, 300000, 1000000, 5000000, 61000000, 1800000000}[d.Intn(6)]+d.Int63n(1000)) * time.Microsecond
			d.advance(step)
			log += fmt.Sprintf("+%s\n", step)
		}
		r := usual[d.Intn(3)]
		if d.chance(30) {
			r = d.request()
		}
		service, _ := strconv.Atoi(d.one("200", "200", "401", "403", "404", "500"))
		up.will(status(service))
		log += fmt.Sprintf("%d: %s, answered by %d\n", i, describedRequest(r), service)
		calls := up.count()
		want := m.decide(r, service, d.now())
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r.Clone(ctx))
		d.seen[want.kind(c)]++
		problem := d.compare(c, answers, want, w, service, up.count()-calls)
		require.Empty(t, problem, "seed %d, request %d\n%s\n%s", seed, i, described(c, answers), log)
	}
	return true
}

// kind returns what a ruling is, for the counts that show that each is tried.
func (v *ruling) kind(c *RateLimitConfig) string {
	kind := map[int]string{0: "passes", 403: "denied", 429: "refused"}[v.status]
	switch {
	case v.names["penalty"]:
		kind = "penalty"
	case v.status == 0 && !v.counted:
		kind = "not limited"
	}
	if c.DryRun == "true" {
		kind += ", dry run"
	}
	return kind
}

// compare returns how an answer differs from what the model says; "": it does not.
func (d trial) compare(c *RateLimitConfig, answers *AnswersConfig, want *ruling, w *httptest.ResponseRecorder, service, forwarded int) string {
	limited, denied := 429, 403
	if answers != nil && answers.RateLimited != nil && answers.RateLimited.Status != "" {
		limited = 420
	}
	if answers != nil && answers.Denied != nil {
		denied = 410
	}
	passes := want.status == 0 || c.DryRun == "true"
	status := service
	switch {
	case passes:
	case want.status == 429:
		status = limited
	default:
		status = denied
	}
	if passes != (forwarded == 1) || status != w.Code {
		return fmt.Sprintf("status %d, forwarded %d times, instead of %d, and of %d: %v", w.Code, forwarded, status, want.status, want.names)
	}
	if !passes && want.status == 429 {
		if problem := d.compareRefusal(answers, want, w); problem != "" {
			return problem
		}
	} else if w.Header().Get("Retry-After") != "" {
		return "a Retry-After without a refusal"
	}
	return d.compareHeaders(c, want, w.Header(), passes)
}

// near reports whether a number of seconds is that of the microseconds, rounded up. The clock of a Redis is another.
func (d trial) near(text string, micros int64) bool {
	if d.redis == nil {
		return text == wholeSeconds(micros)
	}
	n := numberOf(text, -1)
	return n >= 1 && n <= numberOf(wholeSeconds(micros), 0)+1 && n >= numberOf(wholeSeconds(micros), 0)-5
}

func (d trial) compareRefusal(answers *AnswersConfig, want *ruling, w *httptest.ResponseRecorder) string {
	after := w.Header().Get("Retry-After")
	if !d.near(after, want.wait) {
		return fmt.Sprintf("Retry-After %s instead of %s", after, wholeSeconds(want.wait))
	}
	name, body := "", w.Body.String()
	switch {
	case answers == nil:
		if body != limitedBody {
			return "another body: " + body
		}
		return ""
	case answers.Format == "problem":
		shown := struct {
			Status, RetryAfter int64
			Limit              string
		}{}
		if err := json.Unmarshal([]byte(body), &shown); err != nil || shown.Status != 429 || strconv.FormatInt(shown.RetryAfter, 10) != after {
			return "another body: " + body
		}
		name = shown.Limit
	default:
		var seconds string
		name, seconds, _ = strings.Cut(body, "|")
		if seconds != after {
			return "another body: " + body
		}
	}
	if !want.names[name] {
		return fmt.Sprintf("refused by %q instead of %v", name, want.names)
	}
	return ""
}

func (d trial) compareHeaders(c *RateLimitConfig, want *ruling, header http.Header, passes bool) string {
	shown := c.ResponseHeaders != "" && want.counted && (c.ResponseHeadersOn != "refused" || !passes)
	draft, older := header.Get("RateLimit-Policy"), header.Get("X-RateLimit-Limit")
	if (draft != "") != (shown && c.ResponseHeaders != "x-ratelimit") || (older != "") != (shown && c.ResponseHeaders != "ratelimit") {
		return fmt.Sprintf("headers shown: %q %q, instead of %v", draft, older, shown)
	}
	left, next := want.left, want.next
	if want.status == 429 {
		left, next = 0, want.wait
	}
	name := ""
	if draft != "" {
		if strings.Join(sortedTexts(strings.Split(draft, ", ")), ", ") != strings.Join(sortedTexts(want.policy), ", ") {
			return fmt.Sprintf("policy %s instead of %v", draft, want.policy)
		}
		item := header.Get("RateLimit")
		parts := strings.Split(item, ";")
		name = strings.Trim(parts[0], `"`)
		if problem := d.compareLeft(strings.TrimPrefix(parts[1], "r="), left); problem != "" {
			return item + problem
		}
		if !want.names["penalty"] && (!want.names[name] || !d.near(strings.TrimPrefix(parts[2], "t="), next)) {
			return fmt.Sprintf("%s instead of %v, another token in %s", item, want.names, wholeSeconds(next))
		}
	}
	if older == "" || want.names["penalty"] {
		return ""
	}
	if problem := d.compareLeft(header.Get("X-RateLimit-Remaining"), left); problem != "" {
		return "X-RateLimit-Remaining" + problem
	}
	for one := range want.names {
		if strconv.FormatInt(want.quota[one], 10) == older && d.near(header.Get("X-RateLimit-Reset"), want.full[one]) && (name == "" || name == one) {
			return ""
		}
	}
	return fmt.Sprintf("X-RateLimit-Limit %s and -Reset %s instead of those of %v: %v in %v", older, header.Get("X-RateLimit-Reset"), want.names, want.quota, want.full)
}

// compareLeft compares the number left, which with Redis may be less than there is.
func (d trial) compareLeft(text string, left int64) string {
	n := numberOf(text, -1)
	if n == left || d.redis != nil && n >= 0 && n < left {
		return ""
	}
	return fmt.Sprintf(": %s left instead of %d", text, left)
}

// tryAlone tries the configuration of a seed without Redis.
func tryAlone(t *testing.T, seed int64, seen map[string]int) bool {
	newProcess(t, 0)
	clock := newStoppedClock(t)
	now := func() int64 { return int64(clock.since(start)) / 1000 }
	return trial{dice: dice{rand.New(rand.NewSource(seed)), false, false}, now: now, advance: clock.advance, requests: 60, seen: seen}.run(t, seed)
}

// requireTried checks that most configurations are not refused, and that each kind of ruling was there.
func requireTried(t *testing.T, tried, refused int, seen map[string]int, kinds ...string) {
	t.Logf("%d of %d configurations refused; requests: %v", refused, tried, seen)
	require.Less(t, refused, tried/2)
	require.Positive(t, refused)
	for _, kind := range kinds {
		require.Positive(t, seen[kind], kind)
	}
}

func TestCombinations_inThisProcess(t *testing.T) {
	tried, refused, seen := 300, 0, map[string]int{}
	for seed := int64(1); seed <= int64(tried); seed++ {
		if !tryAlone(t, seed, seen) {
			refused++
		}
	}
	requireTried(t, tried, refused, seen, "passes", "refused", "denied", "not limited", "penalty", "refused, dry run", "denied, dry run", "penalty, dry run")
}

func TestCombinations_inRedis(t *testing.T) {
	newProcess(t, 0)
	redis := at(redistest.Start(t).Addr())
	begun := time.Now()
	now := func() int64 { return time.Since(begun).Microseconds() }
	tried, refused, seen := 60, 0, map[string]int{}
	for seed := int64(1); seed <= int64(tried); seed++ {
		if !(trial{dice: dice{rand.New(rand.NewSource(seed)), true, false}, redis: redis, now: now, requests: 40, seen: seen}).run(t, seed) {
			refused++
		}
	}
	requireTried(t, tried, refused, seen, "passes", "refused", "denied", "not limited", "refused, dry run", "denied, dry run")
}

// Buckets of which the gateway leases tokens: no request passes that the model refuses, and at least 97 % pass of those that it admits.
func TestCombinations_largeBuckets(t *testing.T) {
	newProcess(t, 0)
	redis := at(redistest.Start(t).Addr())
	begun := time.Now()
	now := func() int64 { return time.Since(begun).Microseconds() }
	admitted, missed, refused := 0, 0, 0
	for seed := int64(1); seed <= 15; seed++ {
		d := dice{rand.New(rand.NewSource(seed)), false, true}
		c := d.config()
		c.DryRun, c.Penalty = "", nil
		up := &upstream{}
		ctx, cancel := context.WithCancel(context.Background())
		handler, err := New(ctx, up, &Config{Name: fmt.Sprintf("large%d", seed), Redis: redis, RateLimit: c}, "")
		if err != nil {
			require.NotEmpty(t, reasons(c), "seed %d: %v", seed, err)
			cancel()
			continue
		}
		m := newModel(c)
		usual := []*http.Request{d.request(), d.request(), d.request()}
		here, missedHere := 0, 0
		for i := 0; i < 2500; i++ {
			r := usual[i*i%7%3]
			calls := up.count()
			want := m.decide(r, 200, now())
			handler.ServeHTTP(httptest.NewRecorder(), r.Clone(ctx))
			passes := up.count() > calls
			switch {
			case want.status != 0:
				refused++
				require.False(t, passes, "seed %d, request %d: it passes although %v refuses\n%s", seed, i, want.names, described(c, nil))
			case passes:
				here++
			default:
				missedHere++
				m.giveBack(want)
			}
		}
		cancel()
		require.LessOrEqual(t, float64(missedHere), 0.03*float64(here), "seed %d: %d passed, and %d more should have\n%s", seed, here, missedHere, described(c, nil))
		admitted, missed = admitted+here, missed+missedHere
	}
	t.Logf("%d passed, %d refused, %d refused too soon", admitted, refused, missed)
	require.Greater(t, admitted, 3000)
	require.Greater(t, refused, 3000)
}

func FuzzCombinations(f *testing.F) {
	for seed := int64(1000); seed < 1020; seed++ {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed int64) { tryAlone(t, seed, map[string]int{}) })
}
