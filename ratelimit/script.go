package ratelimit

// take refills buckets by the time that has passed on Redis's clock and takes tokens from them, one bucket a key.
//
//	KEYS[i]      <keyPrefix>:{<name>}:bucket:<kind>:<key>
//	ARGV[4i-3]   capacity, tokens
//	ARGV[4i-2]   refill, tokens per period
//	ARGV[4i-1]   period, microseconds
//	ARGV[4i]     tokens asked for; as many of them are taken as there are
//
//	answers for each key two integers: the tokens taken, and the level of the bucket afterwards;
//	{-1, 0} where the key holds something that is not a bucket: it is left alone
//
// A level counts in units of a token divided by the period in microseconds, so that a microsecond refills exactly
// `refill` units and nothing is ever rounded. capacity x period stays below 2^53, as far as Lua's numbers are exact.
//
// The value of a key is "level time period": time is Redis's clock at that level. A bucket that nothing was ever taken
// from, or that had the time to fill up, has no key. A clock that was set back refills nothing: time starts anew there.
const take = `local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local answer = {}
for i = 1, #KEYS do
	local key = KEYS[i]
	local capacity = tonumber(ARGV[4 * i - 3])
	local refill = tonumber(ARGV[4 * i - 2])
	local period = tonumber(ARGV[4 * i - 1])
	local asked = tonumber(ARGV[4 * i])
	local full = capacity * period
	local level, before, unit = full, now, period
	local value = redis.pcall('GET', key)
	local ours = true
	if type(value) == 'string' then
		level, before, unit = string.match(value, '^(%d+) (%d+) (%d+)$')
		ours = level ~= nil and #value < 64
		if ours then
			level, before, unit = tonumber(level), tonumber(before), tonumber(unit)
			ours = unit > 0
		end
	elseif type(value) == 'table' then
		if string.sub(value.err, 1, 9) ~= 'WRONGTYPE' then
			return value
		end
		ours = false
	end
	if not ours then
		answer[2 * i - 1] = -1
		answer[2 * i] = 0
	else
		if unit ~= period then
			local tokens = math.floor(level / unit)
			level = tokens * period + math.floor((level - tokens * unit) / unit * period)
		end
		if level >= full then
			level = full
		elseif now > before then
			local enough = math.ceil((full - level) / refill) + 1
			level = math.min(full, level + math.min(now - before, enough) * refill)
		end
		local taken = math.min(asked, math.floor(level / period))
		level = level - taken * period
		if taken > 0 or now < before then
			local idle = math.ceil((full - level) / refill / 1000) + 1
			redis.call('SET', key, string.format('%.0f %.0f %.0f', level, now, period), 'PX', string.format('%.0f', idle))
		end
		answer[2 * i - 1] = taken
		answer[2 * i] = level
	end
end
return answer
`
