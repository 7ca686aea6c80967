package resilience

import (
	"crypto/rand"
	"encoding/hex"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/resilient-gateway/resilience/identity"
	"github.com/resilient-gateway/resilience/internal/store"
)

// Where there is an admin block, a gateway registers with Redis for each of its middlewares, and so learns which other gateways share them. A
// registration is renewed in the background and ends by itself.

const (
	fleetInterval = 5 * time.Second  // between two registrations
	fleetTime     = 16 * time.Second // how long one lasts
	maxFleet      = 256              // gateways that are shown
)

// fleetScript registers a gateway under KEYS[1] and returns Redis's clock in milliseconds and all registrations that have not ended. ARGV: its
// id, how long the registration lasts in milliseconds, what it says of itself, and how many registrations to return at most. Expired and
// foreign ones are removed; so are those that a step back of the clock has moved too far ahead.
var fleetScript = store.NewScript(`
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local time, most = tonumber(ARGV[2]), tonumber(ARGV[4])
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f,%s', now + time, ARGV[3]))
redis.call('PEXPIRE', KEYS[1], time * 4)
local all = redis.call('HGETALL', KEYS[1])
local answer, n = {string.format('%.0f', now)}, 0
for i = 1, #all, 2 do
	local deadline = tonumber(string.match(all[i + 1], '^(%d+),[%w._,-]*$'))
	if not deadline or deadline <= now or deadline > now + time or not string.find(all[i], '^%x+$') then
		redis.call('HDEL', KEYS[1], all[i])
	elseif n < most then
		n = n + 1
		answer[#answer + 1] = all[i] .. ',' .. all[i + 1]
	end
end
return table.concat(answer, ' ')
`)

// gatewayID is this process among the gateways.
var gatewayID = newGatewayID()

func newGatewayID() string {
	id := make([]byte, 8)
	rand.Read(id)
	return hex.EncodeToString(id)
}

// member is a gateway as its registration describes it.
type member struct {
	id, version, settings, host string
	offset                      int64 // of its clock from Redis's, milliseconds
}

// fleet is what this gateway knows of the others that share its engines.
type fleet struct {
	mu      sync.Mutex // guards what follows
	busy    bool       // a registration is under way
	offset  int64
	members []member // this gateway too, in the order of their ids
	at      time.Time
}

// alive returns the gateways of the last registration. Without a recent one it is this gateway alone.
func (f *fleet) alive() []member {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.members) == 0 || time.Since(f.at) > fleetTime {
		return []member{{id: gatewayID, version: version, host: hostName()}}
	}
	return append([]member{}, f.members...)
}

// begin reports whether a registration may begin.
func (f *fleet) begin() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	first := !f.busy
	f.busy = true
	return first
}

func (f *fleet) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.busy = false
}

// register registers this gateway for engines and learns of the others.
func (e *engines) register(settings string, timeout time.Duration) {
	defer func() {
		recover()
		e.fleet.end()
	}()
	e.fleet.mu.Lock()
	about := version + "," + settings + "," + strconv.FormatInt(e.fleet.offset, 10) + "," + hostName()
	e.fleet.mu.Unlock()
	call := &store.Call{Script: fleetScript, Number: 1, Words: []string{
		store.Word(e.fleetKey), store.Word(gatewayID), store.Word(strconv.FormatInt(fleetTime.Milliseconds(), 10)), store.Word(about), store.Word(strconv.Itoa(maxFleet)),
	}}
	begun := time.Now()
	e.store.Run([]*store.Call{call}, begun.Add(timeout))
	if call.Err == nil {
		e.fleet.apply(strings.Fields(call.Answer), begun, time.Now())
	}
}

// apply takes the script's answer.
func (f *fleet) apply(words []string, sent, received time.Time) {
	if len(words) == 0 {
		return
	}
	now, err := strconv.ParseInt(words[0], 10, 64)
	if err != nil {
		return
	}
	members := []member{}
	for _, word := range words[1:] {
		fields := strings.Split(word, ",")
		if len(fields) != 6 {
			continue
		}
		offset, _ := strconv.ParseInt(fields[4], 10, 64)
		members = append(members, member{id: fields[0], version: fields[2], settings: fields[3], offset: offset, host: fields[5]})
	}
	sort.Slice(members, func(i, j int) bool { return members[i].id < members[j].id })
	f.mu.Lock()
	defer f.mu.Unlock()
	f.offset = sent.Add(received.Sub(sent)/2).UnixMilli() - now
	f.members = members
	f.at = received
}

// hostName returns this host's name, as far as a registration may hold it.
func hostName() string {
	name, _ := os.Hostname()
	name = strings.Map(func(c rune) rune {
		if c == '.' || c == '-' || c == '_' || c < 0x80 && isLetterOrDigit(byte(c)) {
			return c
		}
		return '_'
	}, name)
	if len(name) > 64 {
		name = name[:64]
	}
	return name
}

// registerAll registers this gateway for all middlewares of the present configuration.
func (g *registry) registerAll() {
	for _, one := range g.shown() {
		if one.store == nil || one.store.IsUnavailable() || !one.fleet.begin() {
			continue
		}
		registerInBackground(one.engines, one.settingsID(), one.routes[0].timeout)
	}
}

func registerInBackground(e *engines, settings string, timeout time.Duration) {
	go e.register(settings, timeout)
}

// settingsID returns a hash of the settings of all routes, to compare gateways.
func (one *shownEngines) settingsID() string {
	parts := []string{}
	for _, route := range one.routes {
		if !contains(parts, route.compared) {
			parts = append(parts, route.compared)
		}
	}
	sort.Strings(parts)
	return identity.Hash(strings.Join(parts, "\n"))[:12]
}

// fleetStatus returns what the status shows of the gateways that share a middleware.
func (one *shownEngines) fleetStatus() map[string]interface{} {
	gateways := []interface{}{}
	own := one.settingsID()
	differ := false
	for _, member := range one.fleet.alive() {
		self := member.id == gatewayID
		differs := !self && member.settings != own
		differ = differ || differs
		gateways = append(gateways, map[string]interface{}{
			"id": member.id, "host": member.host, "version": member.version, "self": self, "settingsDiffer": differs,
			"clockOffsetSeconds": float64(member.offset) / 1000,
		})
	}
	return map[string]interface{}{"gateways": gateways, "settingsDiffer": differ}
}
