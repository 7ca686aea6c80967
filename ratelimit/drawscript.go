package ratelimit

// draw takes tokens of several limits for each request: from every level of every bucket value that the request draws on, or from none.
//
//	KEYS[i]      a bucket value; no key occurs twice
//	KEYS[last]   if a limit of the call has standing leases: the counts of the registry (standingscript.go)
//	ARGV[1]      the terms of leases, as for take
//	ARGV[2]      the limits of the call, separated by spaces: "name:capacity:refill:period"; default is the limit that take knows. With
//	             standing leases it is "default:capacity:refill:period:standing", as for take
//	ARGV[2+i]    one request: "want draw draw ...". want is 1, or 0 to take nothing but do the rest. Its draws have different keys. want
//	             may be followed by "p" and the index of the client's penalty in KEYS (penaltyscript.go)
//	draw         "key/limits/cost/owed/refund" with key as an index of KEYS, limits as indexes of the call's limits, joined by "+", and
//	             tokens: cost to take from each level; owed to take first, or as many as there are, whatever the verdict; refund
//	             to put back; or
//	             "key/limits/cost/owed/refund/short/long": also lease at most short tokens for a short time, or at most long
//	             tokens for a long time, as in take, but from all of these levels; or
//	             "key/limits/cost/owed/refund/short/long/lease/unused": also return this lease, with this many of its tokens
//	             unused, to the levels that paid for it
//
//	answers      one word for each request: "taken,draw,draw" with taken 1 or 0, and each draw as "levels:leased" or
//	             "levels:leased:lease:length": the levels after this request, in the order of its limits and joined by "+", the tokens
//	             leased from each, and the number and duration of the lease as in take. Or "+": the script took what was wanted, leased
//	             nothing, and every level is nearly full, with at least the minimum left. Or "-1": a key holds something that is not a
//	             bucket, or more levels than a value may hold; the script did nothing for this request. Or "!left,draw,draw": the client is
//	             penalised for another number of microseconds; nothing was taken and nothing leased
//
// The requests of a call count one after another, as if each came alone. Returned leases, refunds, debts and new leases do not depend on
// the verdict. The script reads each value once, and writes it once if a request changed it. severalLevels describes the values.
const draw = `local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local short, long, minLeft, share, most, part, plenty = string.match(ARGV[1], '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+)$')
minLeft, plenty = tonumber(minLeft), plenty / 8
` + countsOf + joinsSince + severalLevels + penaltyOf + `
local limits, default, stands = {}, nil, false
for name, capacity, refill, period, standing in string.gmatch(ARGV[2], '([%w_-]+):(%d+):(%d+):(%d+):?(%d*)') do
	local limit = {name = name, capacity = tonumber(capacity), refill = tonumber(refill), period = tonumber(period), standing = 0}
	limits[#limits + 1] = limit
	if name == 'default' then
		limit.standing = tonumber(standing) or 0
		default = default or limit
		stands = stands or limit.standing > 0
	end
end

local reserve, joins, first = 0, 0, 0
if stands then
	reserve, joins, first = countsOf(redis.pcall('GET', KEYS[#KEYS]))
end
local load, levelOf, settle, giveBack, leaseAhead, save, keptBack = severalLevels(tonumber(short), tonumber(long), minLeft, tonumber(share),
	tonumber(most), tonumber(part), reserve, joins, first)

-- The limits by the text that names them in a draw.
local limitsOf = {}

local function limitsIn(text)
	local list = {}
	for i in string.gmatch(text, '%d+') do
		list[#list + 1] = limits[tonumber(i)]
	end
	limitsOf[text] = list
	return list
end

local buckets, failure = {}, nil

-- Returns the bucket of a key, settled with the numbers of these limits; false if the key holds something else.
local function open(i, list)
	local value = redis.pcall('GET', KEYS[i])
	if type(value) == 'table' then
		if string.sub(value.err, 1, 9) ~= 'WRONGTYPE' then
			failure = value
		end
		return false
	end
	local b = load(value)
	if not b then
		return false
	end
	for _, limit in ipairs(list) do
		levelOf(b, limit)
	end
	local own = b.levels[1]
	if own and not own.capacity and default then
		levelOf(b, default)
	end
	settle(b)
	return b
end

local penalties = {}

-- Returns how long the client of a key is penalised; -1 if the key holds something else.
local function penaltyLeft(i)
	if penalties[i] == nil then
		local value, ends = redis.pcall('GET', KEYS[i]), nil
		if type(value) ~= 'table' then
			ends = penaltyOf(value)
		elseif string.sub(value.err, 1, 9) ~= 'WRONGTYPE' then
			failure = value
		end
		penalties[i] = ends and math.max(0, ends - now) or -1
	end
	return penalties[i]
end

-- Returns the draws of a request, or nil if it cannot draw.
local function drawsOf(ask)
	local draws = {}
	for key, text, cost, owed, refund, ahead in string.gmatch(ask, ' (%d+)/([%d+]+)/(%d+)/(%d+)/(%d+)(%S*)') do
		local list, i = limitsOf[text] or limitsIn(text), tonumber(key)
		local b = buckets[i]
		if b == nil then
			b = open(i, list)
			buckets[i] = b
		end
		if not b then
			return nil
		end
		local levels = {}
		for l, limit in ipairs(list) do
			levels[l] = levelOf(b, limit)
			if not levels[l] then
				return nil
			end
		end
		draws[#draws + 1] = {bucket = b, levels = levels, cost = tonumber(cost), owed = owed, refund = refund, ahead = ahead}
	end
	return draws
end

-- Does for a draw what does not depend on the verdict and comes before it. Returns whether each level has the cost.
local function prepare(d)
	local b, enough = d.bucket, true
	if d.ahead ~= '' then
		d.short, d.long, d.lease, d.unused = string.match(d.ahead, '^/(%d+)/(%d+)/?(%d*)/?(%d*)$')
		if d.unused ~= '' then
			giveBack(b, tonumber(d.lease), tonumber(d.unused))
		end
	end
	for _, level in ipairs(d.levels) do
		local period = level.period
		if d.refund ~= '0' then
			level.level = math.min(level.level + d.refund * period, math.max(0, level.capacity - keptBack(level) - level.leased) * period)
			b.changed = true
		end
		if d.owed ~= '0' then
			local paid = math.max(0, math.min(tonumber(d.owed), math.floor(level.level / period)))
			level.level = level.level - paid * period
			b.changed = b.changed or paid > 0
		end
		if level.level < d.cost * period then
			enough = false
		end
	end
	return enough
end

local function pay(d)
	for _, level in ipairs(d.levels) do
		level.level = math.max(0, level.level - d.cost * level.period)
	end
	d.bucket.changed = d.bucket.changed or d.cost > 0
end

-- Leases ahead, unless the client is penalised. Returns what a draw answers, and whether that is not worth an answer.
local function report(d, penalised)
	local extra, deadline, length = 0, nil, nil
	if d.ahead ~= '' and not penalised then
		extra, deadline, length = leaseAhead(d.bucket, d.levels, tonumber(d.short), tonumber(d.long))
	end
	local words, isFull = {}, extra == 0
	for i, level in ipairs(d.levels) do
		words[i] = string.format('%.0f', level.level)
		isFull = isFull and math.floor(level.level / level.period) >= minLeft and level.level >= level.capacity * level.period * plenty
	end
	local word = table.concat(words, '+')
	if extra > 0 then
		return string.format('%s:%.0f:%.0f:%.0f', word, extra, deadline, length), false
	end
	return word .. ':0', isFull
end

local function answerTo(ask)
	local left = 0
	if string.byte(ask, 2) == 112 then
		left = penaltyLeft(tonumber(string.match(ask, '^%dp(%d+)')))
	end
	local draws = left >= 0 and drawsOf(ask)
	if not draws then
		return '-1'
	end
	local wanted = string.byte(ask) == 49
	local taken = wanted and left == 0
	for _, d in ipairs(draws) do
		if not prepare(d) then
			taken = false
		end
	end
	if taken then
		for _, d in ipairs(draws) do
			pay(d)
		end
	end
	local words, isFull = {taken and '1' or '0'}, taken == wanted
	if left > 0 then
		words[1], isFull = string.format('!%.0f', left), false
	end
	for i, d in ipairs(draws) do
		local word, full = report(d, left > 0)
		words[i + 1] = word
		isFull = isFull and full
	end
	if isFull then
		return '+'
	end
	return table.concat(words, ',')
end

local answer = {}
for i = 3, #ARGV do
	answer[i - 2] = answerTo(ARGV[i])
	if failure then
		return failure
	end
end
for i = 1, #KEYS do
	local b = buckets[i]
	if b and b.changed then
		save(KEYS[i], b)
	end
end
return table.concat(answer, ' ')
`
