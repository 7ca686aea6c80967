package ratelimit

// take refills buckets by the time that has passed on Redis's clock and takes tokens from them, one bucket for each key.
//
//	KEYS[i]      <keyPrefix>:{<name>}:bucket:<kind>:<key>
//	KEYS[last]   with standing leases: the counts of the registry (standingscript.go)
//	ARGV[1]      "capacity refill period": tokens, tokens per period, microseconds; or "capacity refill period standing": also the most
//	             tokens that are kept back for standing leases
//	ARGV[2]      "short long minimum share most part plenty": the duration of a short lease and of a long one, microseconds; the
//	             tokens that must be left for a lease, and the largest part of them that is leased; how many leases a bucket may
//	             have; the part of the capacity that may be leased while another long lease is given; from how many eighths of
//	             the capacity on a bucket is nearly full
//	ARGV[2+i]    one for each key; trailing ones may be omitted, which means "1 0":
//	             "asked 0": take this many tokens, or as many as the bucket has; or
//	             "asked short long": also lease at most short tokens for a short time, or at most long tokens for a long time,
//	             whichever gives more; or
//	             "asked short long lease unused": also return this lease, with this many of its tokens unused
//
//	answers      for each key a word, "taken:level:leased" or "taken:level:leased:lease:length": the tokens taken; the level
//	             of the bucket afterwards; the tokens leased; and, if any are leased, the number of the lease and its duration
//	             in microseconds. Or "+": the script took all the tokens asked for, leased none, and the bucket is nearly full,
//	             with at least the minimum left: a gateway needs no more detail. Or "-1:0:0": the key holds something that is
//	             not a bucket, and the script did not change it
//
// A level counts in units of a token divided by the period in microseconds, so that a microsecond refills exactly
// `refill` units and nothing is ever rounded. capacity x period stays below 2^53: Lua's numbers are exact up to there.
//
// The value of a key is "level time period", with standing leases "level time period+joins", and, for each lease, " deadline:tokens", in order
// of deadline. A value with named levels, which
// draw writes, continues as severalLevels describes: take then takes from its first level, and keeps the others. time is Redis's clock at that
// level. A lease's deadline, on the same clock, is also its number; if another lease has that number, it is the next free microsecond.
// Refill stops when the level, the leased tokens and those that are kept back add up to the capacity. So the requests admitted in any time t
// are at most capacity + refill x t, leases included. Each join since the value was written takes a token from the level, which may become
// negative, but not less than minus the most that are kept back. A call without standing leases takes no joins off, and keeps their number for
// the next call with them. If the leases of a larger limit would leave nothing, the script forgets the longest ones, which
// expire at their gateways. A bucket that is new, or that had time to fill up, has no key. If the clock was set back, the bucket refills
// from the new time on, and no lease lasts longer than a long one.
const take = takeBefore + severalLevels + takeAfter

// The key of the counts is the last of the keys only if standing is not 0.

const takeBefore = `local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local capacity, refill, period, standing = string.match(ARGV[1], '^(%d+) (%d+) (%d+) ?(%d*)$')
capacity, refill, period, standing = tonumber(capacity), tonumber(refill), tonumber(period), tonumber(standing) or 0
local keys, reserve, joins, first = #KEYS, 0, 0, 0
if standing > 0 then` + countsOf + `
	reserve, joins, first = countsOf(redis.pcall('GET', KEYS[keys]))
	keys, reserve = keys - 1, math.min(reserve, standing)
end
local minLeft, plenty = string.match(ARGV[2], '^%d+ %d+ (%d+) %d+ %d+ %d+ (%d+)$')
minLeft = tonumber(minLeft)
plenty = capacity * period / 8 * plenty
local answer = {}
` + joinsSince

const takeAfter = `
-- Returns the function that takes from the level default of a value that has several. It is made when the first such value is met.
local function takerOfSeveral()
	local short, long, share, most, part = string.match(ARGV[2], '^(%d+) (%d+) %d+ (%d+) (%d+) (%d+)')
	local load, levelOf, settle, giveBack, leaseAhead, save = severalLevels(tonumber(short), tonumber(long), minLeft,
		tonumber(share), tonumber(most), tonumber(part), reserve, joins, first)
	local limit = {name = 'default', capacity = capacity, refill = refill, period = period, standing = standing}

	return function(key, value, ask)
		local b = load(value)
		if not b then
			return '-1:0:0'
		end
		local level = levelOf(b, limit)
		settle(b)
		local asked, forShort, forLong, lease, unused = string.match(ask, '^(%d+) (%d+) ?(%d*) ?(%d*) ?(%d*)$')
		if unused ~= '' then
			giveBack(b, tonumber(lease), tonumber(unused))
		end
		asked = tonumber(asked)
		local taken = math.max(0, math.min(asked, math.floor(level.level / period)))
		level.level = level.level - taken * period
		local extra, deadline, length = 0, nil, nil
		if forLong ~= '' then
			extra, deadline, length = leaseAhead(b, {level}, tonumber(forShort), tonumber(forLong))
		end
		local word = string.format('%d:%.0f:%.0f', taken, level.level, extra)
		if extra > 0 then
			word = string.format('%s:%.0f:%.0f', word, deadline, length)
		elseif taken == asked and math.floor(level.level / period) >= minLeft and level.level >= plenty then
			word = '+'
		end
		if b.changed or taken > 0 then
			save(key, b)
		end
		return word
	end
end

-- Returns the function that takes from a bucket that has a key. It is made when the first such key is met: making it would cost a call
-- for one new key a tenth of its time.
local function taker()
	local short, long, share, most, part = string.match(ARGV[2], '^(%d+) (%d+) %d+ (%d+) (%d+) (%d+)')
	short, long, most = tonumber(short), tonumber(long), tonumber(most)
	local exact = 2 ^ 53
	local level, before, unit, known, leases, leased
	local takeOfSeveral

	local function refillUntil(time, keptBack)
		local full = math.max(0, capacity - keptBack - leased) * period
		if level >= full then
			level = full
		elseif time > before then
			local enough = math.ceil((full - level) / refill) + 1
			level = math.min(full, level + math.min(time - before, enough) * refill)
		end
		before = math.max(before, time)
	end

	local function load(value)
		local rest
		level, before, unit, known, rest = string.match(value, '^(-?%d+) (%d+) (%d+)%+?(%d*)(.*)$')
		if not level or #value > 4096 then
			return false
		end
		level, before, unit, known = tonumber(level), tonumber(before), tonumber(unit), tonumber(known) or 0
		if rest ~= '' then
			if string.gsub(rest, ' %d+:%d+', '') ~= '' then
				return false
			end
			for deadline, tokens in string.gmatch(rest, ' (%d+):(%d+)') do
				tokens = tonumber(tokens)
				leased = leased + tokens
				leases[#leases + 1] = {tonumber(deadline), tokens}
			end
		end
		return unit > 0 and unit < exact and level > -exact and level < exact and before < exact
	end

	local function settle()
		if unit ~= period then
			local tokens = math.floor(level / unit)
			level = tokens * period + math.floor((level - tokens * unit) / unit * period)
		end
		local setBack = now < before
		if setBack then
			before = now
		end
		while leased >= capacity do
			leased = leased - table.remove(leases)[2]
		end
		local kept = {}
		for _, lease in ipairs(leases) do
			if lease[1] > now then
				lease[1] = math.min(lease[1], now + long + most)
				kept[#kept + 1] = lease
			else
				refillUntil(lease[1], standing) -- more gateways may have been registered then
				leased = leased - lease[2]
			end
		end
		leases = kept
		-- Not before: a lease that held the level down would hide what the joins cost.
		if standing > 0 and known ~= joins then
			level = math.min(level, capacity * period) - joinsSince(known, joins, first, standing) * period
			known = joins
		end
		refillUntil(now, reserve)
		level = math.max(level, 0 - standing * period)
		return setBack
	end

	local function giveBack(deadline, unused)
		for i, lease in ipairs(leases) do
			if lease[1] == deadline then
				table.remove(leases, i)
				leased = leased - lease[2]
				level = level + math.min(unused, lease[2]) * period
				level = math.min(level, math.max(0, capacity - reserve - leased) * period)
				return
			end
		end
	end

	local function save(key)
		local value = string.format(known > 0 and '%.0f %.0f %.0f+%.0f' or '%.0f %.0f %.0f', level, now, period, known)
		local missing = capacity * period - level
		if standing > 0 and (joins > 0 or #leases > 0 or missing > 2 * standing * period) then
			missing = 2 * (missing + standing * period)
		end
		local idle = math.ceil(missing / refill / 1000) + 1
		if #leases > 0 then
			idle = idle + math.ceil((leases[#leases][1] - now) / 1000)
			local words = {value}
			for _, lease in ipairs(leases) do
				words[#words + 1] = string.format('%.0f:%.0f', lease[1], lease[2])
			end
			value = table.concat(words, ' ')
		end
		redis.call('SET', key, value, 'PX', string.format('%.0f', idle))
	end

	return function(key, value, ask)
		level, before, unit, known, leases, leased = (capacity - reserve) * period, now, period, joins, {}, 0
		if value and not load(value) then
			takeOfSeveral = takeOfSeveral or takerOfSeveral()
			return takeOfSeveral(key, value, ask)
		end
		local changed = settle()
		local asked, forShort, forLong, lease, unused = 1, '', '', '', ''
		if ask ~= '1 0' then
			asked, forShort, forLong, lease, unused = string.match(ask, '^(%d+) (%d+) ?(%d*) ?(%d*) ?(%d*)$')
		end
		if unused ~= '' then
			giveBack(tonumber(lease), tonumber(unused))
			changed = true
		end
		asked = tonumber(asked)
		local left = math.floor(level / period)
		local taken = math.max(0, math.min(asked, left))
		left = left - taken
		local extra, length = 0, short
		if forLong ~= '' and left >= minLeft and #leases < most then
			local room = math.max(0, math.min(math.floor(left / share), capacity - standing - leased))
			extra = math.min(tonumber(forShort), room)
			forLong = math.min(tonumber(forLong), room, math.floor((capacity / part - leased) / 2))
			if forLong > 0 and forLong >= extra then
				extra, length = forLong, long
			end
		end
		level = level - (taken + extra) * period
		local word = string.format('%d:%.0f:%.0f', taken, level, extra)
		if extra > 0 then
			local deadline, place = now + length, 1
			while leases[place] and leases[place][1] <= deadline do
				if leases[place][1] == deadline then
					deadline = deadline + 1
				end
				place = place + 1
			end
			table.insert(leases, place, {deadline, extra})
			leased = leased + extra
			word = string.format('%s:%.0f:%.0f', word, deadline, length)
		elseif taken == asked and left >= minLeft and level >= plenty then
			word = '+'
		end
		if changed or taken + extra > 0 then
			save(key)
		end
		return word
	end
end

-- Takes the first token of a bucket that has no key, as most have none where there are lots of clients. With NX and GET one command does
-- that, and otherwise reads what is there. A call for one key reads first: a bucket that has a key would lose more by making these
-- strings than one without gains.
local firstValue, firstIdle, firstWord

local function takeFirst(call, key, ...)
	if not firstValue then
		local level = (capacity - reserve - 1) * period
		firstValue = string.format(joins > 0 and '%.0f %.0f %.0f+%.0f' or '%.0f %.0f %.0f', level, now, period, joins)
		local missing = capacity * period - level
		if joins > 0 then
			missing = 2 * (missing + standing * period)
		end
		firstIdle = string.format('%.0f', math.ceil(missing / refill / 1000) + 1)
		firstWord = '+'
		if capacity - reserve - 1 < minLeft or level < plenty then
			firstWord = string.format('1:%.0f:0', level)
		end
	end
	return call('SET', key, firstValue, 'PX', firstIdle, ...)
end

local takeFrom
for i = 1, keys do
	local key, ask, value = KEYS[i], ARGV[2 + i] or '1 0', nil
	if ask == '1 0' and keys > 1 then
		value = takeFirst(redis.pcall, key, 'NX', 'GET')
	end
	if value == false then
		answer[i] = firstWord
	else
		-- Redis before 7.0 does not know NX with GET, and a full one sets nothing: both read.
		if type(value) ~= 'string' then
			value = redis.pcall('GET', key)
		end
		if type(value) == 'table' then
			if string.sub(value.err, 1, 9) ~= 'WRONGTYPE' then
				return value
			end
			answer[i] = '-1:0:0'
		elseif not value and ask == '1 0' then
			takeFirst(redis.call, key)
			answer[i] = firstWord
		else
			takeFrom = takeFrom or taker()
			answer[i] = takeFrom(key, value, ask)
		end
	end
end
return table.concat(answer, ' ')
`
