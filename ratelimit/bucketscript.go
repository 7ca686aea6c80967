package ratelimit

// severalLevels is the part of the scripts that reads, settles and writes a bucket value with several levels, one for each limit. draw uses
// it for every value. take uses it for values that hold named levels, and takes from the level named default.
//
// A value is "level time period" or "level time period+joins", the level of the limit default, and then, if there are any:
//
//	" deadline:tokens"                    a lease that only default paid for
//	" deadline:tokens:places"             a lease and the levels that paid for it: A is default, B the first named level, and so on
//	"|default capacity refill"            the numbers of default, so that a call that does not name it can refill its level
//	"|name level period capacity refill"  a named level
//
// Leases are in order of deadline. time is Redis's clock at all the levels. "0 time 0" means that default has no level here: it is full, as
// is every named level that the value lacks. A value without named levels has the form that take describes.
//
// Each level refills until it and its leased tokens make its capacity: the tokens of the leases that it paid for. A lease that is returned
// goes back to the same levels, whichever limits the call names. So the promise of one limit holds for each of them: requests admitted in
// any time t take at most capacity + refill x t from it.
//
// A call refills the levels that it names with its own numbers, and the others with those of the value. If the numbers of default are
// unknown, its level is not refilled: the time until then is lost, but only once, because the next call for default stores its numbers.
//
// Only the level default has standing leases. A call that does not name default does not refill the level of a value with joins: it does not
// read the counts of the registry.
//
// A lease leaves a level that its tokens would leave empty, as in take. The script does not write named levels that are full. A value
// holds at most 32 named levels and 8192 bytes.
const severalLevels = `
-- Returns the functions for values with several levels.
local function severalLevels(short, long, minLeft, share, most, part, reserve, joins, first)
	local exact = 2 ^ 53

	-- Returns what is kept back of a level for standing leases, which only the level default has.
	local function keptBack(level)
		return math.min(reserve, level.standing or 0)
	end

	local function load(value)
		local b = {levels = {false}, byName = {}, leases = {}, late = 0, joins = joins}
		if not value then
			return b
		end
		local level, time, unit, known, rest = string.match(value, '^(-?%d+) (%d+) (%d+)%+?(%d*)(.*)$')
		if not level or #value > 8192 then
			return nil
		end
		level, time, unit = tonumber(level), tonumber(time), tonumber(unit)
		if level >= exact or level <= -exact or time >= exact or unit >= exact or unit == 0 and level ~= 0 then
			return nil
		end
		if unit > 0 then
			b.joins = tonumber(known) or 0
			local own = {name = 'default', level = level, period = unit, at = time, leased = 0}
			b.levels[1], b.byName.default = own, own
		end
		b.late = math.max(0, now - time)
		local leases, tail = string.match(rest, '^([^|]*)(.*)$')
		for entry in string.gmatch(tail, '|([^|]*)') do
			local name, numbers = string.match(entry, '^([%w_-]+)( [%d ]+)$')
			local level, period, capacity, refill = string.match(numbers or '', '^ (%d+) (%d+) (%d+) (%d+)$')
			if name == 'default' then
				capacity, refill = string.match(numbers, '^ (%d+) (%d+)$')
				level, period = 0, unit
			end
			capacity, refill, period, level = tonumber(capacity), tonumber(refill), tonumber(period), tonumber(level)
			if not (capacity and capacity * period < exact and refill > 0 and refill < exact and level < exact) then
				return nil
			end
			b.tail = true
			local found = b.byName[name]
			if name == 'default' then
				if not found or found.capacity or capacity == 0 then
					return nil
				end
				if known == '' then
					found.capacity, found.refill, found.standing = capacity, refill, 0
				end
			else
				if found or period == 0 or capacity == 0 or #b.levels > 32 then
					return nil
				end
				found = {name = name, level = level, period = period, capacity = capacity, refill = refill, at = time, leased = 0}
				b.levels[#b.levels + 1], b.byName[name] = found, found
			end
		end
		if leases ~= '' then
			if string.gsub(leases, ' %d+:%d+%S*', '') ~= '' then
				return nil
			end
			for deadline, tokens, places in string.gmatch(leases, ' (%d+):(%d+)(%S*)') do
				local lease = {tonumber(deadline), tonumber(tokens)}
				if lease[2] == 0 then
					return nil
				end
				if places == '' then
					places = ':A'
				end
				if not string.find(places, '^:[A-a]+$') then
					return nil
				end
				for i = 2, #places do
					local payer = b.levels[string.byte(places, i) - 64]
					if not payer or i > 2 and string.byte(places, i) <= string.byte(places, i - 1) then
						return nil
					end
					payer.leased = payer.leased + lease[2]
					if payer.leased >= exact then
						return nil
					end
					lease[#lease + 1] = payer
				end
				b.leases[#b.leases + 1] = lease
			end
		end
		return b
	end

	local function refillUntil(level, time, kept)
		if level.capacity then
			local full = math.max(0, level.capacity - kept - level.leased) * level.period
			if level.level >= full then
				level.level = full
			elseif time > level.at then
				local enough = math.ceil((full - level.level) / level.refill) + 1
				level.level = math.min(full, level.level + math.min(time - level.at, enough) * level.refill)
			end
		end
		level.at = math.max(level.at, time)
	end

	-- Takes the joins since the value was written from its level default.
	local function subtractJoins(b, level)
		if level.name == 'default' and level.capacity then
			local known = b.joins
			b.joins = level.standing > 0 and joins or known
			if known ~= b.joins then
				level.level = math.min(level.level, level.capacity * level.period)
					- joinsSince(known, joins, first, level.standing) * level.period
			end
		end
	end

	local function raiseToFloor(level)
		if level.capacity then
			level.level = math.max(level.level, 0 - (level.standing or 0) * level.period)
		end
	end

	local function forgetLeases(b, level)
		local i = #b.leases
		while level.capacity and level.leased >= level.capacity do
			local lease = b.leases[i]
			for p = 3, #lease do
				if lease[p] == level then
					table.remove(lease, p)
					level.leased = level.leased - lease[2]
					break
				end
			end
			if #lease == 2 then
				table.remove(b.leases, i)
			end
			i = i - 1
		end
	end

	-- Returns the bucket's level of a limit, with the numbers of this limit. A value that has no such level gets a full one.
	local function levelOf(b, limit)
		local level = b.byName[limit.name]
		if not level then
			if limit.name ~= 'default' and #b.levels > 32 then
				return nil
			end
			level = {name = limit.name, level = 0, period = limit.period, at = now, leased = 0,
				capacity = limit.capacity, refill = limit.refill, standing = limit.standing}
			level.level = (limit.capacity - keptBack(level)) * limit.period
			if limit.name == 'default' then
				b.joins = limit.standing > 0 and joins or 0
			end
			b.byName[limit.name] = level
			b.levels[limit.name == 'default' and 1 or #b.levels + 1] = level
		elseif level.capacity ~= limit.capacity or level.refill ~= limit.refill or level.period ~= limit.period
			or level.standing ~= limit.standing then
			if level.period ~= limit.period then
				local tokens = math.floor(level.level / level.period)
				level.level = tokens * limit.period + math.floor((level.level - tokens * level.period) / level.period * limit.period)
			end
			level.capacity, level.refill, level.period, level.standing = limit.capacity, limit.refill, limit.period, limit.standing
			if b.settled then
				subtractJoins(b, level)
				forgetLeases(b, level)
				refillUntil(level, now, keptBack(level))
				raiseToFloor(level)
			end
		end
		return level
	end

	local function settle(b)
		for _, level in ipairs(b.levels) do
			if level then
				if level.at > now then
					level.at = now
					b.changed = true
				end
				forgetLeases(b, level)
			end
		end
		local kept = {}
		for _, lease in ipairs(b.leases) do
			if lease[1] > now then
				lease[1] = math.min(lease[1], now + long + most)
				kept[#kept + 1] = lease
			else
				for p = 3, #lease do
					refillUntil(lease[p], lease[1], lease[p].standing or 0) -- more gateways may have been registered then
					lease[p].leased = lease[p].leased - lease[2]
				end
				if b.levels[1] then
					refillUntil(b.levels[1], lease[1], keptBack(b.levels[1])) -- the joins are taken off after this
				end
			end
		end
		b.leases = kept
		for _, level in ipairs(b.levels) do
			if level then
				subtractJoins(b, level)
				refillUntil(level, now, keptBack(level))
				raiseToFloor(level)
			end
		end
		b.settled = true
	end

	local function giveBack(b, deadline, unused)
		b.changed = true
		for i, lease in ipairs(b.leases) do
			if lease[1] == deadline then
				table.remove(b.leases, i)
				unused = math.min(unused, lease[2])
				for p = 3, #lease do
					local payer = lease[p]
					payer.leased = payer.leased - lease[2]
					payer.level = payer.level + unused * payer.period
				end
				return
			end
		end
	end

	-- Leases tokens of some levels. Returns how many, and the number and duration of the lease.
	local function leaseAhead(b, levels, forShort, forLong)
		local room = exact
		for _, level in ipairs(levels) do
			room = math.min(room, math.floor(level.level / level.period))
		end
		if room < minLeft or #b.leases >= most then
			return 0
		end
		room = math.floor(room / share)
		for _, level in ipairs(levels) do
			room = math.max(0, math.min(room, level.capacity - (level.standing or 0) - level.leased))
		end
		local extra, length = math.min(forShort, room), short
		forLong = math.min(forLong, room)
		for _, level in ipairs(levels) do
			forLong = math.min(forLong, math.floor((level.capacity / part - level.leased) / 2))
		end
		if forLong > 0 and forLong >= extra then
			extra, length = forLong, long
		end
		if extra == 0 then
			return 0
		end
		local deadline, place = now + length, 1
		while b.leases[place] and b.leases[place][1] <= deadline do
			if b.leases[place][1] == deadline then
				deadline = deadline + 1
			end
			place = place + 1
		end
		local lease = {deadline, extra}
		for _, level in ipairs(levels) do
			level.level = level.level - extra * level.period
			level.leased = level.leased + extra
			lease[#lease + 1] = level
		end
		table.insert(b.leases, place, lease)
		b.changed = true
		return extra, deadline, length
	end

	local function save(key, b)
		local own, idle, tail, n = b.levels[1], 1, '', 1
		for i = 2, #b.levels do
			local level = b.levels[i]
			local missing = level.capacity * level.period - level.level
			if missing > 0 then
				n = n + 1
				level.place = n
				idle = math.max(idle, math.ceil(missing / level.refill / 1000) + 1)
				tail = string.format('%s|%s %.0f %.0f %.0f %.0f', tail, level.name, level.level, level.period, level.capacity, level.refill)
			end
		end
		local value
		if own then
			own.place = 1
			value = string.format('%.0f %.0f %.0f', own.level, now, own.period)
			if b.joins > 0 then
				value = string.format('%s+%.0f', value, b.joins)
			end
			if not own.capacity then
				idle = math.max(idle, redis.call('PTTL', key) + math.ceil(b.late / 1000) + 1)
			else
				local missing = own.capacity * own.period - own.level
				if own.standing > 0 and (joins > 0 or #b.leases > 0 or missing > 2 * own.standing * own.period) then
					missing = 2 * (missing + own.standing * own.period)
				end
				idle = math.max(idle, math.ceil(missing / own.refill / 1000) + 1)
				if b.tail or n > 1 then
					tail = string.format('|default %.0f %.0f%s', own.capacity, own.refill, tail)
				end
			end
		else
			value = string.format('0 %.0f 0', now)
		end
		if #b.leases > 0 then
			idle = idle + math.ceil((b.leases[#b.leases][1] - now) / 1000)
			local words = {value}
			for _, lease in ipairs(b.leases) do
				local word = string.format('%.0f:%.0f', lease[1], lease[2])
				if #lease > 3 or lease[3] ~= own then
					local places = {}
					for p = 3, #lease do
						places[p - 2] = lease[p].place + 64
					end
					table.sort(places)
					word = word .. ':' .. string.char(unpack(places))
				end
				words[#words + 1] = word
			end
			value = table.concat(words, ' ')
		end
		redis.call('SET', key, value .. tail, 'PX', string.format('%.0f', idle))
	end

	return load, levelOf, settle, giveBack, leaseAhead, save, keptBack
end
`
