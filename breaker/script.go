package breaker

// The scripts keep a breaker in one hash, on Redis's clock, in microseconds. All have the same key, begin with the same
// arguments and answer alike; each begins by bringing the breaker up to now.
//
//	KEYS[1]  <keyPrefix>:{<name>}:breaker
//	         state       closed, open or half-open
//	         generation  the time at which it entered that state; grows with each change
//	         failures    closed: in a row, as Redis heard of them
//	         successes   half-open: so far
//	         deadline    open: when the first probe may pass
//	         issued      half-open: probes so far, the last one's number
//	         probe:<n>   half-open: the deadline of a probe that is under way
//	         upload:<n>  half-open: the deadline of one whose body is still coming
//	         calls       the last calls that counted something, each as <id>:<probe>, a space before each
//	         born        1 where the hash was written because it was missing, and the state is the same since
//	ARGV[1]  failureThreshold, failures
//	ARGV[2]  resetTimeout, microseconds
//	ARGV[3]  halfOpenSuccessThreshold, successes
//	ARGV[4]  halfOpenMaxProbes, probes
//	ARGV[5]  probeTimeout, microseconds
//	ARGV[6]  how long the hash is kept after the last sign of life, milliseconds
//
//	answers  state, generation, failures, successes, wait, probe, born; between them a space
//	         state: 0 closed, 1 open, 2 half-open; wait: open: microseconds until the deadline;
//	         probe: permit: the number of the probe that was let through, else 0; born: 1 or 0
//
// A hash that is missing is a closed breaker, and is written, so that what was reported to an earlier one can be told
// from what belongs to this one. A clock that was set back cuts each deadline to its own length from now, and so does a
// resetTimeout that is shorter than the one that the deadline was made with.
//
// A probe past its deadline is a failure of the service as of then. An upload past its deadline gives its place back
// without a verdict: the service was never asked the whole question.
//
// A call may be run twice, where its answer was lost with the connection: its id tells, and it counts once.
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
local places -- deadlines of what is under way, by kind and number
local held   -- how many there are of each kind

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

local function enter(new, entered)
	state = new
	generation = math.max(now, (generation or 0) + 1)
	failures, successes, issued, calls, born = 0, 0, 0, '', false
	places, held = {probe = {}, upload = {}}, {probe = 0, upload = 0}
	deadline = 0
	if new == 'open' then
		deadline = entered + resetTimeout
	end
	redis.call('DEL', key)
	redis.call('HSET', key, 'state', state, 'generation', text(generation), 'deadline', text(deadline))
	redis.call('PEXPIRE', key, ttl)
end

local function take(kind, n)
	places[kind][n] = now + probeTimeout
	held[kind] = held[kind] + 1
	redis.call('HSET', key, kind .. ':' .. n, text(now + probeTimeout))
end

local function giveBack(kind, n)
	if places[kind][n] then
		places[kind][n] = nil
		held[kind] = held[kind] - 1
		redis.call('HDEL', key, kind .. ':' .. n)
	end
end

local function counted(id)
	return tonumber(string.match(calls, ' ' .. id .. ':(%d+)'))
end

-- Only the last calls are kept: one that is run twice is so within a second.
local function note(id, probe)
	calls = calls .. ' ' .. id .. ':' .. probe
	while #calls > 500 do
		calls = string.match(calls, '^ %S+(.*)$')
	end
	redis.call('HSET', key, 'calls', calls)
end

local function answer(probe)
	local wait = 0
	if state == 'open' then
		wait = math.max(0, deadline - now)
	end
	return string.format('%d %.0f %.0f %.0f %.0f %.0f %d', codes[state], generation, failures, successes, wait, probe, born and 1 or 0)
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
	for kind, dues in pairs(places) do
		for n, due in pairs(dues) do
			if due > now + probeTimeout then
				dues[n] = now + probeTimeout
				redis.call('HSET', key, kind .. ':' .. n, text(now + probeTimeout))
			elseif due <= now and kind == 'probe' then
				lost = math.min(lost or due, due)
			elseif due <= now then
				giveBack(kind, n)
			end
		end
	end
	if lost then
		enter('open', lost)
	end
end
`

	// view changes nothing else.
	viewLua = commonLua + `return answer(0)
`

	// permit asks to send a request. Closed lets it pass, and so does half-open where there is a place for a probe; open
	// past its deadline becomes half-open. Uploads hold all places but one at most. Where there is a single one, an upload may
	// hold it until a request without a body asks for it.
	//
	//	ARGV[7]  id of this call, of letters and digits
	//	ARGV[8]  1 where the request has a body that is still coming, else 0
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
local before = counted(id)
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
		giveBack('upload', uploads[i])
	end
end
if held[kind] >= most or held.probe + held.upload >= maxProbes then
	return answer(0)
end
issued = issued + 1
redis.call('HSET', key, 'issued', issued)
take(kind, issued)
note(id, issued)
return answer(issued)
`

	// sent tells that the body of a probe has been sent whole: from now on its time counts.
	//
	//	ARGV[7]  generation under which it was let through
	//	ARGV[8]  number of the probe
	//	ARGV[9]  1 where it has been under way for longer than probeTimeout, else 0: it takes a place again if there is one
	bodySentLua = commonLua + `local probe = tonumber(ARGV[8])
if tonumber(ARGV[7]) ~= generation or state ~= 'half-open' then
	return answer(0)
end
if places.upload[probe] then
	giveBack('upload', probe)
	take('probe', probe)
elseif ARGV[9] == '1' and not places.probe[probe] and held.probe + held.upload < maxProbes then
	take('probe', probe)
end
return answer(0)
`

	// report tells what became of requests. What was let through under another generation counts for nothing, nor does a
	// probe that has no place any more.
	//
	//	ARGV[7]   generation under which they were let through
	//	ARGV[8]   number of the probe, or 0
	//	ARGV[9]   successes: 0 or 1; of a closed breaker: one came before the failures
	//	ARGV[10]  failures; a probe with neither was given up without a verdict
	//	ARGV[11]  id of this call, of letters and digits
	reportLua = commonLua + `local probe = tonumber(ARGV[8])
local succeeded = ARGV[9] == '1'
local failed = tonumber(ARGV[10])
local id = ARGV[11]
if tonumber(ARGV[7]) ~= generation then
	return answer(0)
end
if state == 'closed' and probe == 0 and not counted(id) then
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
			note(id, 0)
		end
	end
elseif state == 'half-open' and (places.probe[probe] or places.upload[probe]) then
	if failed > 0 then
		enter('open', now)
	else
		giveBack('probe', probe)
		giveBack('upload', probe)
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

	// restore writes an open breaker back that Redis has lost, unless something has happened since the hash was found missing.
	//
	//	ARGV[7]  generation of the hash that was written because there was none
	//	ARGV[8]  until the deadline, microseconds
	restoreLua = commonLua + `if born and state == 'closed' and tonumber(ARGV[7]) == generation then
	enter('open', now + math.min(tonumber(ARGV[8]), resetTimeout) - resetTimeout)
end
return answer(0)
`
)
