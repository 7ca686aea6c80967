package ratelimit

// penaltyOf is the part of the scripts that reads a penalty. The value of a key <keyPrefix>:{<name>}:penalty:<kind>:<key> is
// "ends length count begun", in microseconds of Redis's clock: until when all requests of the client are refused, how long this penalty is,
// and how many refusals were counted since a time. If the clock was set back, a penalty lasts no longer than its length.
const penaltyOf = `
-- Returns the four numbers of a penalty, all 0 if there is none, or nil if the value is something else.
local function penaltyOf(value)
	if not value then
		return 0, 0, 0, 0
	end
	local ends, length, count, begun = string.match(value, '^(%d+) (%d+) (%d+) (%d+)$')
	ends, length, count, begun = tonumber(ends), tonumber(length), tonumber(count), tonumber(begun)
	local exact = 2 ^ 53
	if not (ends and ends < exact and length < exact and count < exact and begun < exact) then
		return nil
	end
	return math.min(ends, now + length), length, count, math.min(begun, now)
end
`

// penalize counts refusals of clients, and penalises a client that has enough of them within a time. It also says which penalties began
// lately, so that gateways with a lease of such a client need not wait for their next call.
//
//	KEYS[1]      <keyPrefix>:{<name>}:penalties, the latest penalties: " number:ends:length:key" for each of the last 64, the latest first
//	KEYS[i]      a client's penalty
//	ARGV[1]      the number of the last penalty that the caller knows of; 0: it knows of none
//	ARGV[i]      "added refusals time most" for the client of KEYS[i]: the refusals to count, how many of them within a time, in
//	             microseconds, begin a penalty, and the longest penalty
//
//	answers      the number of the latest penalty, or 0; for each client the microseconds that are left of its penalty, or -1 if the key
//	             holds something else; and for each penalty that the caller may not know of "left:key", "0:key" if it was ended by hand
//
// The time begins with the first refusal that counts. Refusals during a penalty do not count: otherwise a client could never end it. A penalty
// is twice as long as the one before, at most the longest, unless the client had none for twice the length of that one. The number of a
// penalty is about the time when it began, so that numbers continue where the list of the latest has expired or was lost.
const penalize = `local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
` + penaltyOf + `
local latest, isOurs = redis.pcall('GET', KEYS[1]), true
local number, others = 0, ''
if type(latest) == 'table' then
	isOurs = false
elseif latest then
	number = tonumber(string.match(latest, '^ (%d+):%d+:%d+:%S'))
	isOurs = number ~= nil
	number, others = number or 0, number and latest or ''
end
local before, known, longest = number, tonumber(ARGV[1]), 0

local answer = {''}
for i = 2, #KEYS do
	answer[i] = '-1'
	local value = redis.pcall('GET', KEYS[i])
	local ends, length, count, begun
	if type(value) ~= 'table' then
		ends, length, count, begun = penaltyOf(value)
	elseif string.sub(value.err, 1, 9) ~= 'WRONGTYPE' then
		return value
	end
	if ends then
		local added, refusals, time, most = string.match(ARGV[i], '^(%d+) (%d+) (%d+) (%d+)$')
		added, refusals, time, most = tonumber(added), tonumber(refusals), tonumber(time), tonumber(most)
		if added > 0 and ends <= now then
			if now >= ends + 2 * length then
				length = 0
			end
			if count == 0 or now - begun >= time then
				count, begun = 0, now
			end
			count = count + added
			if count >= refusals then
				length = math.min(most, length > 0 and 2 * length or time)
				ends, count = now + length, 0
				number = math.max(number + 1, now)
				others = string.format(' %.0f:%.0f:%.0f:%s', number, ends, length, KEYS[i]) .. others
			end
			local kept = length > 0 and ends + 2 * length or 0
			if count > 0 then
				kept = math.max(kept, begun + time)
			end
			redis.call('SET', KEYS[i], string.format('%.0f %.0f %.0f %.0f', ends, length, count, begun), 'PX',
				string.format('%.0f', math.ceil((kept - now) / 1000) + 1))
		end
		answer[i] = string.format('%.0f', math.max(0, ends - now))
	end
end

answer[1] = string.format('%.0f', number)
if known > number then
	known = 0 -- the list was lost, and the clock set back
end
local words = {}
for word, begun, ends, length, key in string.gmatch(others, '( (%d+):(%d+):(%d+):(%S+))') do
	if #words == 64 then
		break
	end
	words[#words + 1] = word
	local left = math.min(tonumber(ends) - now, tonumber(length))
	longest = math.max(longest, left)
	if tonumber(begun) > known and (left > 0 or length == '0') then
		answer[#answer + 1] = string.format('%.0f:%s', math.max(0, left), key)
	end
end
if isOurs and number > before then
	redis.call('SET', KEYS[1], table.concat(words), 'PX', string.format('%.0f', math.ceil(longest / 1000) + 1))
end
return table.concat(answer, ' ')
`
