package breaker

// The scripts keep a breaker in one hash, on Redis's clock, in microseconds. All three have the same key, begin with the
// same arguments and answer alike; each begins by bringing the breaker up to now.
//
//	KEYS[1]  <keyPrefix>:{<name>}:breaker
//	         state       closed, open or half-open
//	         generation  the time at which it entered that state; grows with each change
//	         failures    closed: in a row, as Redis heard of them
//	         successes   half-open: so far
//	         deadline    open: when the first probe may pass
//	         issued      half-open: probes so far, the last one's number
//	         probe:<n>   half-open: the deadline of a probe that is under way
//	ARGV[1]  failureThreshold, failures
//	ARGV[2]  resetTimeout, microseconds
//	ARGV[3]  halfOpenSuccessThreshold, successes
//	ARGV[4]  halfOpenMaxProbes, probes
//	ARGV[5]  probeTimeout, microseconds
//	ARGV[6]  how long the hash is kept after the last sign of life, milliseconds
//
//	answers  state, generation, failures, successes, wait, probe; between them a space
//	         state: 0 closed, 1 open, 2 half-open; wait: open: microseconds until the deadline;
//	         probe: permit: the number of the probe that was let through, else 0
//
// A hash that is missing is a closed breaker, and is written, so that what was reported to an earlier one can be told
// from what belongs to this one. A clock that was set back cuts each deadline to its own length from now.
const (
	begin = `local key = KEYS[1]
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

local state, generation, failures, successes, deadline, issued, probes, underWay

local function load()
	local h = {}
	probes, underWay = {}, 0
	local fields = redis.call('HGETALL', key)
	for i = 1, #fields, 2 do
		local n = string.match(fields[i], '^probe:(%d+)$')
		if n then
			probes[tonumber(n)] = tonumber(fields[i + 1]) or 0
			underWay = underWay + 1
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
end

local function enter(new, entered)
	state = new
	generation = math.max(now, (generation or 0) + 1)
	failures, successes, issued, probes, underWay = 0, 0, 0, {}, 0
	deadline = 0
	if new == 'open' then
		deadline = entered + resetTimeout
	end
	redis.call('DEL', key)
	redis.call('HSET', key, 'state', state, 'generation', text(generation), 'deadline', text(deadline))
	redis.call('PEXPIRE', key, ttl)
end

local function answer(probe)
	local wait = 0
	if state == 'open' then
		wait = math.max(0, deadline - now)
	end
	return string.format('%d %.0f %.0f %.0f %.0f %.0f', codes[state], generation, failures, successes, wait, probe)
end

load()
if not codes[state] or not generation then
	enter('closed')
elseif redis.call('PTTL', key) < ttl / 2 then
	redis.call('PEXPIRE', key, ttl)
end
if state == 'open' and deadline > now + resetTimeout then
	deadline = now + resetTimeout
	redis.call('HSET', key, 'deadline', text(deadline))
elseif state == 'half-open' then
	local lost
	for n, due in pairs(probes) do
		if due <= now then
			lost = math.min(lost or due, due)
		elseif due > now + probeTimeout then
			probes[n] = now + probeTimeout
			redis.call('HSET', key, 'probe:' .. n, text(now + probeTimeout))
		end
	end
	if lost then
		enter('open', lost)
	end
end
`

	// view changes nothing else.
	view = begin + `return answer(0)
`

	// permit asks to send a request. Closed lets it pass, and so does half-open where there is a place for a probe; open
	// past its deadline becomes half-open.
	permit = begin + `local probe = 0
if state == 'open' and now >= deadline then
	enter('half-open')
end
if state == 'half-open' and underWay < maxProbes then
	probe = issued + 1
	redis.call('HSET', key, 'issued', probe, 'probe:' .. probe, text(now + probeTimeout))
end
return answer(probe)
`

	// report tells what became of requests. What was let through under another generation counts for nothing, nor does a
	// probe whose time is up.
	//
	//	ARGV[7]   generation under which they were let through
	//	ARGV[8]   number of the probe, or 0
	//	ARGV[9]   successes: 0 or 1; of a closed breaker: one came before the failures
	//	ARGV[10]  failures; a probe with neither was given up without a verdict
	report = begin + `local probe = tonumber(ARGV[8])
local succeeded = ARGV[9] == '1'
local failed = tonumber(ARGV[10])
if tonumber(ARGV[7]) ~= generation then
	return answer(0)
end
if state == 'closed' and probe == 0 then
	local before = failures
	if succeeded then
		failures = 0
	end
	failures = failures + failed
	if failures >= failureThreshold then
		enter('open', now)
	elseif failures ~= before then
		redis.call('HSET', key, 'failures', failures)
	end
elseif state == 'half-open' and probes[probe] then
	if failed > 0 then
		enter('open', now)
	else
		redis.call('HDEL', key, 'probe:' .. probe)
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
)
