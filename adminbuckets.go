package resilience

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/resilient-gateway/resilience/identity"
	"github.com/resilient-gateway/resilience/internal/store"
	"github.com/resilient-gateway/resilience/policy"
	"github.com/resilient-gateway/resilience/ratelimit"
)

// Admin shows and deletes the bucket of one client: <path>/buckets/<kind>:<value>, of a middleware and a limit that the query names. It shows
// and ends the client's penalty with it, whichever limit was asked for: an operator need not know that there are penalties.

// lookup is one bucket that admin was asked for.
type lookup struct {
	of    *shownEngines
	route *route
	limit string
	key   string // of the client: kind and value
	asked *ratelimit.Inspected
}

func (a *adminHandler) serveBucket(w http.ResponseWriter, r *http.Request, rest string) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead && r.Method != http.MethodDelete {
		w.Header()["Allow"] = []string{"GET, HEAD, DELETE"}
		writeProblem(w, r, http.StatusMethodNotAllowed, "Method not allowed, please use GET, HEAD or DELETE.")
		return
	}
	if r.Method == http.MethodDelete && !mayChange(r) {
		adminCrossSite.write(w, r)
		return
	}
	found, status, problem := a.lookup(r, rest)
	if found == nil {
		writeProblem(w, r, status, problem)
		return
	}
	deadline := time.Now().Add(found.route.timeout)
	if r.Method == http.MethodDelete {
		a.deleteBucket(w, r, found, deadline)
		return
	}
	view, err := ratelimit.ViewBucket(found.of.limiter, found.asked, deadline)
	if err != nil {
		a.bucketFailed(w, r, err)
		return
	}
	writeJSON(w, r, found.answer(view))
}

// answer returns what is shown of a bucket. Where only the penalty was asked for, there is none.
func (found *lookup) answer(view *ratelimit.BucketView) map[string]interface{} {
	answer := map[string]interface{}{
		"middleware": found.of.name, "limit": found.limit, "key": identity.Shown(found.key),
		"penaltySeconds": inSeconds(view.Penalty), "limited": view.Penalty > 0,
	}
	if found.asked.Limit == nil {
		return answer
	}
	answer["stored"] = view.Stored
	answer["capacity"] = view.Capacity
	answer["tokens"] = view.Tokens
	answer["leased"] = view.Leased
	answer["held"] = view.Held
	answer["nextTokenSeconds"] = inSeconds(view.Next)
	answer["fullSeconds"] = inSeconds(view.Full)
	answer["refusedForSeconds"] = inSeconds(view.RefuseUntil)
	answer["limited"] = view.Penalty > 0 || view.Tokens+view.Held == 0
	return answer
}

func inSeconds(microseconds int64) float64 { return float64(microseconds) / 1e6 }

func (a *adminHandler) deleteBucket(w http.ResponseWriter, r *http.Request, found *lookup, deadline time.Time) {
	deleted, err := ratelimit.DeleteBucket(found.of.limiter, found.asked, deadline)
	if err != nil {
		a.bucketFailed(w, r, err)
		return
	}
	client, reason := identity.Shown(found.key), plainText(r.URL.Query().Get("reason"))
	if deleted.Bucket {
		found.of.log.Info("bucket deleted", "client", client, "limit", found.limit, "reason", reason, "source", r.RemoteAddr)
	}
	if deleted.Penalty {
		found.of.log.Info("penalty ended", "client", client, "reason", reason, "source", r.RemoteAddr)
	}
	writeJSON(w, r, map[string]interface{}{
		"middleware": found.of.name, "limit": found.limit, "key": client, "deleted": deleted.Bucket, "penaltyEnded": deleted.Penalty,
	})
}

func (a *adminHandler) bucketFailed(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, store.ErrUnavailable) {
		adminUnavailable.write(w, r)
		return
	}
	writeProblem(w, r, http.StatusConflict, "The key in Redis does not hold a bucket.")
}

// maxLookup is how long a key in a path may be.
const maxLookup = 256

// lookup returns the bucket that a request names, or a status and what is wrong.
func (a *adminHandler) lookup(r *http.Request, rest string) (*lookup, int, string) {
	key := strings.TrimPrefix(rest, "/buckets/")
	query := r.URL.Query()
	if len(key) > maxLookup || strings.IndexByte(key, ':') < 1 {
		return nil, http.StatusBadRequest, "A key is <kind>:<value>, such as ip:192.0.2.1, of at most 256 bytes."
	}
	of := a.named(query.Get("middleware"))
	if of == nil {
		return nil, http.StatusNotFound, "There is no such middleware, or there are several: name one, with ?middleware=."
	}
	found := &lookup{of: of, limit: query.Get("limit")}
	if found.limit == "" {
		found.limit = defaultLimit
	}
	for _, route := range of.routes {
		if rule := route.buckets[found.limit]; rule != nil {
			found.find(route, rule, key)
			return found, 0, ""
		}
	}
	return nil, http.StatusNotFound, "The middleware has no such limit."
}

// find finds the bucket and the penalty of a key under a limit of a route.
func (found *lookup) find(route *route, rule *bucketRule, key string) {
	client, listed := found.of.tally.known(key)
	found.route = route
	found.key = client
	found.asked = &ratelimit.Inspected{Key: rule.keyOf(client, listed), Name: rule.name, Limit: rule.limit}
	if rule.kind == inOwnBucket {
		found.asked.Client = client
	}
	if rule.byClient && found.of.penalises() {
		found.asked.Penalty = policy.PenaltyKey(client)
	}
}

// penalises reports whether a route of the middleware penalises clients.
func (one *shownEngines) penalises() bool {
	for _, route := range one.routes {
		if route.penalty {
			return true
		}
	}
	return false
}

// named returns the middleware of a name. No name means the only one.
func (a *adminHandler) named(name string) *shownEngines {
	all := a.registry.shown()
	if name == "" && len(all) == 1 {
		return all[0]
	}
	for _, one := range all {
		if one.name == name {
			return one
		}
	}
	return nil
}

// bucketRule is a limit of a route, and where its buckets are.
type bucketRule struct {
	limit    *ratelimit.Limit // nil: the block has no own limit, and the rule is of the penalty
	kind     int
	name     string
	byClient bool // a key is that of the block's source, which penalties are for
}

// Where the buckets of a limit are.
const (
	inOwnBucket = iota // in the value of the block's own limit
	inNamedBucket
	inBucketOfAll
)

// keyOf returns the key in Redis of a client's bucket, without the prefix of all keys of the scope. The key of a client that is not listed may
// be one from Redis: a hash stays as it is.
func (b *bucketRule) keyOf(key string, listed bool) string {
	switch b.kind {
	case inBucketOfAll:
		return "limit:" + b.name + ":all:"
	case inNamedBucket:
		if !listed && isHashed(key) {
			return "limit:" + b.name + ":" + key
		}
		return "limit:" + b.name + ":" + identity.Hashed(key)
	}
	return "bucket:" + identity.Name(key)
}

// isHashed reports whether the value of a key is a SHA-256: no value of a client is as long (identity.MaxLength).
func isHashed(key string) bool {
	value := key[strings.IndexByte(key, ':')+1:]
	return len(value) == 64 && strings.Trim(value, "0123456789abcdef") == ""
}

// bucketRules returns the limits of a route by name. The penalty is one of them, with the bucket of the block's own limit: a client that is
// let in with an empty bucket would soon be penalised again, and for longer.
func (m *Middleware) bucketRules() map[string]*bucketRule {
	rules := map[string]*bucketRule{}
	if m.limit == nil {
		return rules
	}
	if m.rules == nil || m.rules.Own != nil {
		rules[defaultLimit] = &bucketRule{limit: m.limit, kind: inOwnBucket, name: defaultLimit, byClient: true}
	}
	if m.rules == nil {
		return rules
	}
	for _, rule := range m.rules.Limits {
		one := &bucketRule{limit: rule.Limit, kind: inNamedBucket, name: rule.Name, byClient: rule.Source == nil || rule.Source.All}
		if rule.Source == nil && rule.Match.Empty() && rule.Charge.Empty() {
			one.kind = inOwnBucket
		} else if rule.Source != nil && rule.Source.All {
			one.kind = inBucketOfAll
		}
		rules[rule.Name] = one
	}
	for _, rule := range m.rules.Tiers {
		if rule.Limit != nil {
			rules[rule.Name] = &bucketRule{limit: rule.Limit, kind: inNamedBucket, name: rule.Name, byClient: true}
		}
	}
	if m.rules.Penalty != nil {
		rules[ratelimit.PenaltyName] = &bucketRule{limit: m.rules.Own, kind: inOwnBucket, name: defaultLimit, byClient: true}
	}
	return rules
}

// mayChange reports whether no form of another site can have sent a request: browsers ask before they send its header or type to another
// site, and say where a request comes from.
func mayChange(r *http.Request) bool {
	kind := strings.TrimSpace(strings.SplitN(r.Header.Get("Content-Type"), ";", 2)[0])
	if r.Header.Get("X-Resilience") == "" && !strings.EqualFold(kind, "application/json") {
		return false
	}
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" {
		return false
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	from, err := url.Parse(origin)
	return err == nil && strings.EqualFold(from.Host, r.Host)
}

// plainText returns a text without anything that could be taken for more than text, and at most 200 bytes of it.
func plainText(text string) string {
	plain := strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f || c >= 0x80 && c < 0xa0 || c == 0x2028 || c == 0x2029 || c == 0xfffd {
			return ' '
		}
		return c
	}, text)
	if len(plain) > 200 {
		plain = strings.ToValidUTF8(plain[:200], "")
	}
	return plain
}

func writeJSON(w http.ResponseWriter, r *http.Request, value map[string]interface{}) {
	text, err := json.Marshal(value)
	if err != nil {
		writeProblem(w, r, http.StatusInternalServerError, "The answer cannot be written.")
		return
	}
	writeAdmin(w, r, http.StatusOK, "application/json", text)
}

func writeProblem(w http.ResponseWriter, r *http.Request, status int, problem string) {
	text, _ := json.Marshal(map[string]string{"error": problem})
	writeAdmin(w, r, status, "application/json", text)
}
