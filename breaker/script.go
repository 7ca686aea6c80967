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
//	         state       closed, open, half-open or ramp
//	         generation  grows with each change of state; at least the time of the change
//	         failures    closed: consecutive failures, in the order in which Redis was told; half-open: failed probes
//	         recent      closed, with failureAge: the same failures in slots by their time
//	         window      closed, with ratios: the outcomes of the last window in slots by their time
//	         repeats     how often the circuit has opened again since it was closed, if that makes resetTimeout longer
//	         successes   half-open: successful probes
//	         deadline    open: when the first probe may pass; ramp: when it is closed; while the state is forced: when that ends
//	         forced      open or closed, if an operator has made the state; then only the operator and the deadline change it
//	         forcedFor   microseconds from then to the deadline
//	         reason      the operator's
//	         issued      half-open: the number of the last probe
//	         probe:<n>   half-open: the deadline of a probe under way
//	         upload:<n>  half-open: the deadline of a probe whose body is still being received
//	         by:<n>      half-open, with minGateways: the gateway whose probe that is
//	         calls       the last calls that counted, each as a space and <id>:<number of the probe, or 0>
//	         born        1 if the hash was written because it was missing, and the state has not changed since
//	         gateways    with minGateways: those that saw failures lately in this state, or slow answers with slowRatio, each as a space and <id>:<time>
//	         A slot is a space and <start>:<requests>:<failures>:<slow requests>.
//	ARGV[1]  failureThreshold, failures; 0: they open it only by a ratio
//	ARGV[2]  resetTimeout, microseconds
//	ARGV[3]  halfOpenSuccessThreshold, successes
//	ARGV[4]  halfOpenMaxProbes, probes
//	ARGV[5]  probeTimeout, microseconds
//	ARGV[6]  time to live of the hash, milliseconds
//	ARGV[7]  further rules as numbers with spaces, or empty if there are none:
//	         failureAge                microseconds; 0: failures count whatever their age
//	         halfOpenFailureThreshold  failed probes
//	         resetBackoff              thousandths
//	         maxResetTimeout           microseconds; it applies to what resetBackoff makes longer
//	         resetJitter               per cent
//	         failureRatio, slowRatio   per cent; 0: there is none
//	         window                    microseconds
//	         minimumRequests           requests in the window, below which no ratio is reached
//	         minGateways               gateways that must have seen failures, or slow answers with slowRatio, in the window, or in a minute if there is none, before one opens it
//	         rampDuration              microseconds; 0: probes close it at once
//
//	answers  replyLen integers, separated by spaces, that describe the breaker after the call:
//	         state       0 closed, 1 open, 2 half-open, 3 ramp
//	         generation
//	         failures    closed: those that count now; half-open: failed probes; else 0
//	         successes   half-open; else 0
//	         remaining   open, ramp or forced: microseconds until the deadline, 0 if it has passed; else 0
//	         probe       permit: the number of the probe that may pass, from 1; 0: none. Other scripts: 0
//	         born        1 or 0
//	         repeats
//	         forced      1 open, 2 closed; else 0
//	errors   WRONGTYPE, if the key is not a hash
//
// A missing hash is a closed breaker. It is written, so that reports about an earlier breaker do not match its generation.
// If the clock was set back, or resetTimeout is now shorter, each deadline is cut to its full length from now.
//
// A probe past its deadline is a failure of the service at that deadline. An upload past its deadline loses its place
// without a verdict: the service has not received the whole request.
//
// The jitter of a resetTimeout follows from the generation, which Redis's clock has set, so that it is one for the fleet.
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
local failureAge, failedProbes, backoff, maxReset, jitter = 0, 1, 1000, 0, 0
local failureRatio, slowRatio, windowLength, minimumRequests, minGateways, rampLength = 0, 0, 0, 0, 1, 0
if ARGV[7] ~= '' then
	local rules = {}
	for number in string.gmatch(ARGV[7], '%d+') do
		rules[#rules + 1] = tonumber(number)
	end
	failureAge, failedProbes, backoff, maxReset, jitter, failureRatio, slowRatio, windowLength, minimumRequests, minGateways,
		rampLength = unpack(rules)
end
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local codes = {['closed'] = 0, ['open'] = 1, ['half-open'] = 2, ['ramp'] = 3}

local function text(number)
	return string.format('%.0f', number)
end

local state, generation, failures, successes, deadline, issued, calls, born, recent, window, gateways, repeats, forced, forcedFor
local counted -- failures as the hash has them
local places -- deadlines of probes and uploads under way, by kind and number
local held   -- how many places each kind holds
local holders -- the gateways whose probes they are, by number, with minGateways

-- The slots that are not older than an age, in the order of their starts. Those of the future are left out.
local function slotsIn(slots, age)
	local live = {}
	for start, requests, failed, slow in string.gmatch(slots, ' (%d+):(%d+):(%d+):(%d+)') do
		start = tonumber(start)
		if start > now - age and start <= now then
			live[#live + 1] = {start, tonumber(requests), tonumber(failed), tonumber(slow)}
		end
	end
	return live
end

-- Adds to the slot of now, which is a tenth of the age wide, or to one that has begun since: calls may have different ages. Keeps the last
-- 20 slots.
local function addToSlots(slots, age, requests, failed, slow)
	local live = slotsIn(slots, age)
	local start = now - now % math.floor(age / 10)
	if #live == 0 or live[#live][1] < start then
		live[#live + 1] = {start, 0, 0, 0}
	end
	local last = live[#live]
	last[2], last[3], last[4] = last[2] + requests, last[3] + failed, last[4] + slow
	local out = ''
	for i = math.max(1, #live - 19), #live do
		out = out .. string.format(' %.0f:%.0f:%.0f:%.0f', unpack(live[i]))
	end
	return out
end

local function sumOf(slots, age)
	local requests, failed, slow = 0, 0, 0
	for _, slot in ipairs(slotsIn(slots, age)) do
		requests, failed, slow = requests + slot[2], failed + slot[3], slow + slot[4]
	end
	return requests, failed, slow
end

-- The failures in a row that are not too old.
local function pending()
	if failureAge == 0 then
		return counted
	end
	local _, failed = sumOf(recent, failureAge)
	return math.min(counted, failed)
end

-- Whether enough of the window's requests have failed, or were slow.
local function reachesRatio()
	if failureRatio + slowRatio == 0 then
		return false
	end
	local requests, failed, slow = sumOf(window, windowLength)
	if requests < minimumRequests then
		return false
	end
	return failureRatio > 0 and failed * 100 >= failureRatio * requests or slowRatio > 0 and slow * 100 >= slowRatio * requests
end

-- Whether enough gateways have seen failures lately, or slow answers with slowRatio. Notes the one that reports, if it has.
local function enoughGateways(id, affected)
	if minGateways < 2 then
		return true
	end
	local since, live = now - (windowLength > 0 and windowLength or 60000000), {}
	for other, at in string.gmatch(gateways, ' (%w+):(%d+)') do
		at = tonumber(at)
		if at > since and at <= now and not (affected and other == id) then
			live[#live + 1] = ' ' .. other .. ':' .. text(at)
		end
	end
	if affected then
		live[#live + 1] = ' ' .. id .. ':' .. text(now)
		gateways = table.concat(live, '', math.max(1, #live - minGateways + 1))
	end
	return #live >= minGateways
end

-- How long the circuit is open.
local function openFor()
	local wait, most = resetTimeout, math.max(resetTimeout, maxReset)
	for _ = 1, repeats do
		if backoff == 1000 or wait >= most then
			break
		end
		wait = math.min(most, math.floor(wait / 1000) * backoff + math.floor(wait % 1000 * backoff / 1000))
	end
	return wait + math.floor(wait / 100000) * jitter * (generation % 1000003 * 7919 % 1000)
end

local function load()
	local h = {}
	places, held, holders = {probe = {}, upload = {}}, {probe = 0, upload = 0}, {}
	local fields = redis.call('HGETALL', key)
	for i = 1, #fields, 2 do
		local kind, n = string.match(fields[i], '^(%a+):(%d+)$')
		if kind == 'by' then
			holders[tonumber(n)] = fields[i + 1]
		elseif places[kind] then
			places[kind][tonumber(n)] = tonumber(fields[i + 1]) or 0
			held[kind] = held[kind] + 1
		else
			h[fields[i]] = fields[i + 1]
		end
	end
	state = h.state
	generation = tonumber(h.generation)
	counted = tonumber(h.failures) or 0
	recent = h.recent or ''
	window = h.window or ''
	gateways = h.gateways or ''
	forced = h.forced
	forcedFor = tonumber(h.forcedFor) or 0
	repeats = tonumber(h.repeats) or 0
	failures = counted
	if state == 'closed' then
		failures = pending()
	end
	successes = tonumber(h.successes) or 0
	deadline = tonumber(h.deadline) or 0
	issued = tonumber(h.issued) or 0
	calls = h.calls or ''
	born = h.born == '1'
end

local function enter(new, since)
	if new == 'closed' then
		repeats = 0
	elseif new == 'open' and (state == 'half-open' or state == 'ramp') and backoff > 1000 then
		repeats = repeats + 1
	end
	state = new
	generation = math.max(now, (generation or 0) + 1)
	failures, counted, recent, window, gateways, successes, issued, calls, born = 0, 0, '', '', '', 0, 0, '', false
	places, held, holders = {probe = {}, upload = {}}, {probe = 0, upload = 0}, {}
	forced, forcedFor = nil, 0
	deadline = 0
	if new == 'open' then
		deadline = since + openFor()
	elseif new == 'ramp' then
		deadline = now + rampLength
	end
	redis.call('DEL', key)
	redis.call('HSET', key, 'state', state, 'generation', text(generation), 'deadline', text(deadline))
	if repeats > 0 then
		redis.call('HSET', key, 'repeats', repeats)
	end
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

-- Notes whose probe it is, where the number of gateways counts.
local function noteHolder(n, gateway)
	if minGateways > 1 and gateway ~= '' then
		holders[n] = gateway
		redis.call('HSET', key, 'by:' .. n, gateway)
	end
end

-- Forgets whose probe it was, which has lost or given back its place.
local function forgetHolder(n)
	if holders[n] then
		holders[n] = nil
		redis.call('HDEL', key, 'by:' .. n)
	end
end

local function countedAs(id)
	return tonumber(string.match(calls, ' ' .. id .. ':(%d+)'))
end

-- Keeps the last calls only: a call that is repeated follows within about a second. With ratios there are more calls.
local function noteCall(id, probe)
	calls = calls .. ' ' .. id .. ':' .. probe
	while #calls > (windowLength > 0 and 2000 or 500) do
		calls = string.match(calls, '^ %S+(.*)$')
	end
	redis.call('HSET', key, 'calls', calls)
end

-- Makes the state, until a time has passed.
local function force(new, length, reason)
	enter(new, now)
	forced, forcedFor, deadline = new, length, now + length
	redis.call('HSET', key, 'forced', forced, 'forcedFor', text(forcedFor), 'reason', reason, 'deadline', text(deadline))
	redis.call('PEXPIRE', key, ttl + math.floor(length / 1000))
end

local function endForced(ends)
	forced, forcedFor, deadline = nil, 0, ends
	redis.call('HDEL', key, 'forced', 'forcedFor', 'reason')
	redis.call('HSET', key, 'deadline', text(deadline))
end

local function answer(probe)
	local remaining = 0
	if state == 'open' or state == 'ramp' or forced then
		remaining = math.max(0, deadline - now)
	end
	return string.format('%d %.0f %.0f %.0f %.0f %.0f %d %.0f %d', codes[state], generation, failures, successes, remaining, probe,
		born and 1 or 0, repeats, forced == 'open' and 1 or forced and 2 or 0)
end

-- Counts a failed probe of a gateway, if enough gateways have failed. The last one that may fail opens the circuit.
local function failProbe(since, gateway)
	local before = gateways
	if enoughGateways(gateway, true) then
		failures = failures + 1
		if failures >= failedProbes then
			enter('open', since)
			return
		end
		redis.call('HSET', key, 'failures', failures)
	end
	if gateways ~= before then
		redis.call('HSET', key, 'gateways', gateways)
	end
end

load()
if not codes[state] or not generation then
	enter('closed')
	born = true
	redis.call('HSET', key, 'born', 1)
elseif redis.call('PTTL', key) < ttl / 2 then
	redis.call('PEXPIRE', key, ttl)
end
if forced then
	if deadline > now + forcedFor then
		deadline = now + forcedFor
		redis.call('HSET', key, 'deadline', text(deadline))
	elseif deadline <= now and state == 'closed' then
		endForced(0)
	end
elseif state == 'open' and deadline > now + openFor() then
	deadline = now + openFor()
	redis.call('HSET', key, 'deadline', text(deadline))
elseif state == 'half-open' then
	local lost = {}
	for kind, deadlines in pairs(places) do
		for n, ends in pairs(deadlines) do
			if ends > now + probeTimeout then
				deadlines[n] = now + probeTimeout
				redis.call('HSET', key, kind .. ':' .. n, text(now + probeTimeout))
			elseif ends <= now and kind == 'probe' then
				lost[#lost + 1] = {ends = ends, n = n}
			elseif ends <= now then
				releasePlace(kind, n)
				forgetHolder(n)
			end
		end
	end
	table.sort(lost, function(a, b) return a.ends < b.ends or a.ends == b.ends and a.n < b.n end)
	for _, probe in ipairs(lost) do
		if state == 'half-open' then
			local holder = holders[probe.n] or 'unknown'
			releasePlace('probe', probe.n)
			forgetHolder(probe.n)
			failProbe(probe.ends, holder)
		end
	end
elseif state == 'ramp' then
	if rampLength > 0 and deadline > now + rampLength then
		deadline = now + rampLength
		redis.call('HSET', key, 'deadline', text(deadline))
	end
	if now >= deadline then
		enter('closed')
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
	//	ARGV[8]  id of this call, letters and digits
	//	ARGV[9]  1 if the request's body is still being received, else 0
	//	ARGV[10] with minGateways: the id of the gateway, letters and digits; else empty
	//
	//	answers  state 0             the request may pass
	//	         state 2, probe > 0  it may pass as that probe; the same number if the call is repeated
	//	         state 1             refused; remaining says for how long
	//	         state 2, probe 0    refused: there is no place, or the repeated call's probe has ended
	permitLua = commonLua + `local id = ARGV[8]
local kind, most = 'probe', maxProbes
if ARGV[9] == '1' then
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
		forgetHolder(uploads[i])
	end
end
if held[kind] >= most or held.probe + held.upload >= maxProbes then
	return answer(0)
end
issued = issued + 1
redis.call('HSET', key, 'issued', issued)
takePlace(kind, issued)
noteHolder(issued, ARGV[10])
noteCall(id, issued)
return answer(issued)
`

	// bodySentLua says that the body of an upload has been sent completely: it becomes an ordinary probe, whose probeTimeout
	// starts now.
	//
	//	ARGV[8]   generation under which it passed
	//	ARGV[9]   number of the probe
	//	ARGV[10]  1 if it has been under way for longer than probeTimeout, and so may have lost its place: it takes one again
	//	          if there is one; else 0
	//	ARGV[11]  with minGateways: the id of the gateway, letters and digits; else empty
	//
	//	answers  probe is 0
	bodySentLua = commonLua + `local probe = tonumber(ARGV[9])
if tonumber(ARGV[8]) ~= generation or state ~= 'half-open' then
	return answer(0)
end
if places.upload[probe] then
	releasePlace('upload', probe)
	takePlace('probe', probe)
elseif ARGV[10] == '1' and not places.probe[probe] and held.probe + held.upload < maxProbes then
	takePlace('probe', probe)
	noteHolder(probe, ARGV[11])
end
return answer(0)
`

	// reportLua counts outcomes. Those of another generation do not count, nor does a probe that has lost its place.
	//
	//	ARGV[8]   generation under which the requests passed
	//	ARGV[9]   number of the probe; 0: ordinary requests
	//	ARGV[10]  successes, 0 or 1; of ordinary requests: one came before the failures
	//	ARGV[11]  failures, at least 0; a probe with neither success nor failure gives its place back
	//	ARGV[12]  id of this call, letters and digits
	//	ARGV[13]  empty, or what was counted of ordinary requests, as numbers with spaces: requests; failures; slow requests;
	//	          failures before the first success; the most failures in a row
	//	ARGV[14]  with minGateways: the id of the gateway, letters and digits; else empty
	//
	//	answers  probe is 0; state is 1 if the failures opened the circuit, 0 if the success closed it
	reportLua = commonLua + `local probe = tonumber(ARGV[9])
local succeeded = ARGV[10] == '1'
local failed = tonumber(ARGV[11])
local id = ARGV[12]
if tonumber(ARGV[8]) ~= generation then
	return answer(0)
end
if state == 'closed' and probe == 0 and not forced and not countedAs(id) then
	local recentBefore, windowBefore, gatewaysBefore, most = recent, window, gateways, 0
	local requests, allFailed, slow, first, longest = string.match(ARGV[13], '^(%d+) (%d+) (%d+) (%d+) (%d+)$')
	if requests then
		most = math.max(failures + tonumber(first), tonumber(longest))
		if windowLength > 0 then
			window = addToSlots(window, windowLength, tonumber(requests), tonumber(allFailed), tonumber(slow))
		end
	end
	if succeeded then
		failures, recent = 0, ''
	end
	failures = failures + failed
	local affected = failed > 0 or requests and (tonumber(allFailed) > 0 or slowRatio > 0 and tonumber(slow) > 0)
	local enough = enoughGateways(ARGV[14], affected)
	if enough and (failureThreshold > 0 and math.max(failures, most) >= failureThreshold or reachesRatio()) then
		enter('open', now)
	else
		if failures ~= counted then
			redis.call('HSET', key, 'failures', failures)
		end
		if failed > 0 and failureAge > 0 then
			recent = addToSlots(recent, failureAge, 0, failed, 0)
		end
		if recent ~= recentBefore then
			redis.call('HSET', key, 'recent', recent)
		end
		if window ~= windowBefore then
			redis.call('HSET', key, 'window', window)
		end
		if gateways ~= gatewaysBefore then
			redis.call('HSET', key, 'gateways', gateways)
		end
		if failed > 0 or requests then
			noteCall(id, 0)
		end
	end
elseif state == 'half-open' and (places.probe[probe] or places.upload[probe]) then
	releasePlace('probe', probe)
	releasePlace('upload', probe)
	forgetHolder(probe)
	if failed > 0 then
		failProbe(now, ARGV[14])
	elseif succeeded then
		successes = successes + 1
		if successes >= successThreshold then
			enter(rampLength > 0 and 'ramp' or 'closed')
		else
			redis.call('HSET', key, 'successes', successes)
		end
	end
elseif state == 'ramp' and probe == 0 and failed > 0 and not countedAs(id) then
	failProbe(now, ARGV[14])
	if state == 'ramp' then
		noteCall(id, 0)
	end
end
return answer(0)
`

	// restoreLua writes an open circuit back that Redis has lost, unless the state has changed since that was found out. It replaces a
	// closed circuit only; a forced one replaces any.
	//
	//	ARGV[8]   generation of the hash that was written because it was missing, or that is from before the lost circuit
	//	ARGV[9]   remaining time until the deadline, microseconds; cut to the whole time
	//	ARGV[10]  repeats
	//	ARGV[11]  open or closed, if the lost state was forced; else empty
	//	ARGV[12]  generation of the lost circuit
	//
	//	answers  the breaker as it is then; probe is 0
	restoreLua = commonLua + `local isOlder = generation < tonumber(ARGV[12])
local mayReplace = state == 'closed' or ARGV[11] ~= ''
if not (born or isOlder) or not mayReplace or tonumber(ARGV[8]) ~= generation then
	return answer(0)
end
state, repeats = 'closed', tonumber(ARGV[10]) -- so that it does not count as opened once more
if ARGV[11] ~= '' then
	force(ARGV[11], tonumber(ARGV[9]), 'written back after a loss of data')
else
	enter('open', now)
	deadline = math.min(deadline, now + tonumber(ARGV[9]))
	redis.call('HSET', key, 'deadline', text(deadline))
end
return answer(0)
`

	// forceLua makes the state by hand, or ends that. An open circuit then sends probes, and a closed one starts to count.
	//
	//	ARGV[8]   open, closed or auto
	//	ARGV[9]   for how long, microseconds
	//	ARGV[10]  the reason, in words
	//
	//	answers  the breaker as it is then; probe is 0
	forceLua = commonLua + `if ARGV[8] ~= 'auto' then
	force(ARGV[8], tonumber(ARGV[9]), ARGV[10])
elseif forced == 'open' then
	endForced(now)
elseif forced then
	endForced(0)
end
return answer(0)
`
)

// replyLen is how many integers each script answers with.
const replyLen = 9

var (
	viewScript     = store.NewScript(viewLua)
	permitScript   = store.NewScript(permitLua)
	bodySentScript = store.NewScript(bodySentLua)
	reportScript   = store.NewScript(reportLua)
	restoreScript  = store.NewScript(restoreLua)
	forceScript    = store.NewScript(forceLua)
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
