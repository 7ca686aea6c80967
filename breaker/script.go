package breaker

import (
	"math/rand"
	"strconv"

	"github.com/resilient-gateway/resilience/internal/store"
)

// The scripts keep a breaker in one hash. Times are microseconds on Redis's clock. All scripts have the same key and the
// same first arguments, begin by applying what time alone does, and answer alike.
//
//	KEYS[1]  <keyPrefix>:{<name>}:breaker, a hash:
//	         state       closed, open or half-open
//	         generation  grows with each change of state; at least the time of the change
//	         failures    closed: consecutive failures, in the order in which Redis was told
//	         successes   half-open: successful probes
//	         deadline    open: when the first probe may pass
//	         issued      half-open: the number of the last probe
//	         probe:<n>   half-open: the deadline of a probe under way
//	         upload:<n>  half-open: the deadline of a probe whose body is still being received
//	         calls       the last calls that counted, each as a space and <id>:<number of the probe, or 0>
//	         born        1 if the hash was written because it was missing, and the state has not changed since
//	ARGV[1]  failureThreshold, failures
//	ARGV[2]  resetTimeout, microseconds
//	ARGV[3]  halfOpenSuccessThreshold, successes
//	ARGV[4]  halfOpenMaxProbes, probes
//	ARGV[5]  probeTimeout, microseconds
//	ARGV[6]  time to live of the hash, milliseconds
//
//	answers  replyLen integers, separated by spaces, that describe the breaker after the call:
//	         state       0 closed, 1 open, 2 half-open
//	         generation
//	         failures    closed; else 0
//	         successes   half-open; else 0
//	         remaining   open: microseconds until the deadline, 0 if it has passed; else 0
//	         probe       permit: the number of the probe that may pass, from 1; 0: none. Other scripts: 0
//	         born        1 or 0
//	errors   WRONGTYPE, if the key is not a hash
//
// A missing hash is a closed breaker. It is written, so that reports about an earlier breaker do not match its generation.
// If the clock was set back, or resetTimeout is now shorter, each deadline is cut to its full length from now.
//
// A probe past its deadline is a failure of the service at that deadline. An upload past its deadline loses its place
// without a verdict: the service has not received the whole request.
//
// A call may run twice, if the connection was lost before its answer arrived. Its id shows that, and it counts once.
const (
	commonLua = `local key = KEYS[1]
local failureThreshold = tonumber(ARGV[1])
local resetTimeout = tonumber(ARGV[2])
local successThreshold = tonumber(ARGV[3])
local maxProbes = tonumber(ARGV[4])
local probeTimeout = tonumber(ARGV[5])
local ttl = ARGV[6]
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local codes = {['closed'] = 0, ['open'] = 1, ['half-open'] = 2}

local function text(number)
	return string.format('%.0f', number)
end

local state, generation, failures, successes, deadline, issued, calls, born
local places -- deadlines of probes and uploads under way, by kind and number
local held   -- how many places each kind holds

local function load()
	local h = {}
	places, held = {probe = {}, upload = {}}, {probe = 0, upload = 0}
	local fields = redis.call('HGETALL', key)
	for i = 1, #fields, 2 do
		local kind, n = string.match(fields[i], '^(%a+):(%d+)$')
		if places[kind] then
			places[kind][tonumber(n)] = tonumber(fields[i + 1]) or 0
			held[kind] = held[kind] + 1
		else
			h[fields[i]] = fields[i + 1]
		end
	end
	state = h.state
	generation = tonumber(h.generation)
	failures = tonumber(h.failures) or 0
	successes = tonumber(h.successes) or 0
	deadline = tonumber(h.deadline) or 0
	issued = tonumber(h.issued) or 0
	calls = h.calls or ''
	born = h.born == '1'
end

local function enter(new, since)
	state = new
	generation = math.max(now, (generation or 0) + 1)
	failures, successes, issued, calls, born = 0, 0, 0, '', false
	places, held = {probe = {}, upload = {}}, {probe = 0, upload = 0}
	deadline = 0
	if new == 'open' then
		deadline = since + resetTimeout
	end
	redis.call('DEL', key)
	redis.call('HSET', key, 'state', state, 'generation', text(generation), 'deadline', text(deadline))
	redis.call('PEXPIRE', key, ttl)
end

local function takePlace(kind, n)
	places[kind][n] = now + probeTimeout
	held[kind] = held[kind] + 1
	redis.call('HSET', key, kind .. ':' .. n, text(now + probeTimeout))
end

local function releasePlace(kind, n)
	if places[kind][n] then
		places[kind][n] = nil
		held[kind] = held[kind] - 1
		redis.call('HDEL', key, kind .. ':' .. n)
	end
end

local function countedAs(id)
	return tonumber(string.match(calls, ' ' .. id .. ':(%d+)'))
end

-- Keeps the last calls only: a call that is repeated follows within about a second.
local function noteCall(id, probe)
	calls = calls .. ' ' .. id .. ':' .. probe
	while #calls > 500 do
		calls = string.match(calls, '^ %S+(.*)$')
	end
	redis.call('HSET', key, 'calls', calls)
end

local function answer(probe)
	local remaining = 0
	if state == 'open' then
		remaining = math.max(0, deadline - now)
	end
	return string.format('%d %.0f %.0f %.0f %.0f %.0f %d', codes[state], generation, failures, successes, remaining, probe, born and 1 or 0)
end

load()
if not codes[state] or not generation then
	enter('closed')
	born = true
	redis.call('HSET', key, 'born', 1)
elseif redis.call('PTTL', key) < ttl / 2 then
	redis.call('PEXPIRE', key, ttl)
end
if state == 'open' and deadline > now + resetTimeout then
	deadline = now + resetTimeout
	redis.call('HSET', key, 'deadline', text(deadline))
elseif state == 'half-open' then
	local lost
	for kind, deadlines in pairs(places) do
		for n, ends in pairs(deadlines) do
			if ends > now + probeTimeout then
				deadlines[n] = now + probeTimeout
				redis.call('HSET', key, kind .. ':' .. n, text(now + probeTimeout))
			elseif ends <= now and kind == 'probe' then
				lost = math.min(lost or ends, ends)
			elseif ends <= now then
				releasePlace(kind, n)
			end
		end
	end
	if lost then
		enter('open', lost)
	end
end
`

	// viewLua only describes the breaker.
	//
	//	answers  probe is 0
	viewLua = commonLua + `return answer(0)
`

	// permitLua asks to send a request. A closed circuit lets it pass. An open one past its deadline becomes half-open. A
	// half-open one lets it pass as a probe if there is a place. Uploads hold all places but one at most. If there is a single
	// place, an upload holds it until a request without a body asks for it.
	//
	//	ARGV[7]  id of this call, letters and digits
	//	ARGV[8]  1 if the request's body is still being received, else 0
	//
	//	answers  state 0             the request may pass
	//	         state 2, probe > 0  it may pass as that probe; the same number if the call is repeated
	//	         state 1             refused; remaining says for how long
	//	         state 2, probe 0    refused: there is no place, or the repeated call's probe has ended
	permitLua = commonLua + `local id = ARGV[7]
local kind, most = 'probe', maxProbes
if ARGV[8] == '1' then
	kind, most = 'upload', math.max(1, maxProbes - 1)
end
if state == 'open' and now >= deadline then
	enter('half-open')
end
if state ~= 'half-open' then
	return answer(0)
end
local before = countedAs(id)
if before then
	return answer((places.probe[before] or places.upload[before]) and before or 0)
end
if kind == 'probe' and held.upload >= maxProbes then
	local uploads = {}
	for n in pairs(places.upload) do
		uploads[#uploads + 1] = n
	end
	table.sort(uploads)
	for i = 1, #uploads - maxProbes + 1 do
		releasePlace('upload', uploads[i])
	end
end
if held[kind] >= most or held.probe + held.upload >= maxProbes then
	return answer(0)
end
issued = issued + 1
redis.call('HSET', key, 'issued', issued)
takePlace(kind, issued)
noteCall(id, issued)
return answer(issued)
`

	// bodySentLua says that the body of an upload has been sent completely: it becomes an ordinary probe, whose probeTimeout
	// starts now.
	//
	//	ARGV[7]  generation under which it passed
	//	ARGV[8]  number of the probe
	//	ARGV[9]  1 if it has been under way for longer than probeTimeout, and so may have lost its place: it takes one again
	//	         if there is one; else 0
	//
	//	answers  probe is 0
	bodySentLua = commonLua + `local probe = tonumber(ARGV[8])
if tonumber(ARGV[7]) ~= generation or state ~= 'half-open' then
	return answer(0)
end
if places.upload[probe] then
	releasePlace('upload', probe)
	takePlace('probe', probe)
elseif ARGV[9] == '1' and not places.probe[probe] and held.probe + held.upload < maxProbes then
	takePlace('probe', probe)
end
return answer(0)
`

	// reportLua counts outcomes. Those of another generation do not count, nor does a probe that has lost its place.
	//
	//	ARGV[7]   generation under which the requests passed
	//	ARGV[8]   number of the probe; 0: ordinary requests
	//	ARGV[9]   successes, 0 or 1; of ordinary requests: one came before the failures
	//	ARGV[10]  failures, at least 0; a probe with neither success nor failure gives its place back
	//	ARGV[11]  id of this call, letters and digits
	//
	//	answers  probe is 0; state is 1 if the failures opened the circuit, 0 if the success closed it
	reportLua = commonLua + `local probe = tonumber(ARGV[8])
local succeeded = ARGV[9] == '1'
local failed = tonumber(ARGV[10])
local id = ARGV[11]
if tonumber(ARGV[7]) ~= generation then
	return answer(0)
end
if state == 'closed' and probe == 0 and not countedAs(id) then
	local before = failures
	if succeeded then
		failures = 0
	end
	failures = failures + failed
	if failures >= failureThreshold then
		enter('open', now)
	else
		if failures ~= before then
			redis.call('HSET', key, 'failures', failures)
		end
		if failed > 0 then
			noteCall(id, 0)
		end
	end
elseif state == 'half-open' and (places.probe[probe] or places.upload[probe]) then
	if failed > 0 then
		enter('open', now)
	else
		releasePlace('probe', probe)
		releasePlace('upload', probe)
		if succeeded then
			successes = successes + 1
			if successes >= successThreshold then
				enter('closed')
			else
				redis.call('HSET', key, 'successes', successes)
			end
		end
	end
end
return answer(0)
`

	// restoreLua writes an open circuit back that Redis has lost, unless the state has changed since the hash was found
	// missing.
	//
	//	ARGV[7]  generation of the hash that was written because it was missing
	//	ARGV[8]  remaining time until the deadline, microseconds; cut to resetTimeout
	//
	//	answers  state 1 if the circuit was written back; else the breaker as it is; probe is 0
	restoreLua = commonLua + `if born and state == 'closed' and tonumber(ARGV[7]) == generation then
	enter('open', now + math.min(tonumber(ARGV[8]), resetTimeout) - resetTimeout)
end
return answer(0)
`
)

// replyLen is how many integers each script answers with.
const replyLen = 7

var (
	viewScript     = store.NewScript(viewLua)
	permitScript   = store.NewScript(permitLua)
	bodySentScript = store.NewScript(bodySentLua)
	reportScript   = store.NewScript(reportLua)
	restoreScript  = store.NewScript(restoreLua)
)

// withArgs returns a script's arguments: the policy's, then the script's own.
func withArgs(policy *Policy, own ...string) []string {
	args := make([]string, 0, len(policy.args)+len(own))
	args = append(args, policy.args...)
	return append(args, own...)
}

// newCallID returns an id that no other call has. It does not look like a number.
func newCallID() string {
	return "c" + strconv.FormatInt(rand.Int63(), 36)
}

func boolArg(on bool) string {
	if on {
		return "1"
	}
	return "0"
}

func intArg(n int64) string {
	return strconv.FormatInt(n, 10)
}
