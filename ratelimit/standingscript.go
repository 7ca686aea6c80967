package ratelimit

// A gateway with a standing lease may use one token of every bucket of a limit without asking. The scripts keep these tokens back. They know
// how many from two keys of the registry:
//
//	<keyPrefix>:{<name>}:gateways        a sorted set: the gateways, and when their registrations end on Redis's clock, in microseconds
//	<keyPrefix>:{<name>}:gateways:count  "gateways joins first": how many there were at the last registration, the joins ever, and what this
//	                                     number was before the first one: Redis's microseconds, so that no two registries count alike
//
// docs/decisions/0023-standing-leases.md has the rules and why they suffice.

// register adds a registration, or renews one.
//
//	KEYS[1], [2]  the sorted set and the counts
//	ARGV[1]       the name of the registration: each join of each gateway has another one
//	ARGV[2]       how long it lasts, microseconds
//	ARGV[3]       1: the gateway joins; 0: it renews, which does nothing if the name is not registered
//	ARGV[4]       how long any registration lasts at most, microseconds
//	ARGV[5]       how long the counts are kept: until every value that they were used for has expired, milliseconds
//	ARGV[6]       the name of the gateway's last join, which a join replaces, and which otherwise does not count in the answer; may be empty
//
//	answers       "gateways found": how many registrations there are, and whether the name is one of them, 1 or 0; or "denied": the user may
//	              not run the commands of sorted sets. An error would count as a Redis that serves nothing
//
// A registration never becomes shorter, unless Redis's clock was set back. A call that was on its way for long can neither renew what was lost
// nor look like a later join.
const register = countsOf + `
local function registered()
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local name, lasts, join, longest, replaced = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1', tonumber(ARGV[4]), ARGV[6]
local latest = string.format('%.0f', now + longest)
for _, other in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. latest, '+inf')) do
	redis.call('ZADD', KEYS[1], latest, other)
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
if join and replaced ~= name then
	redis.call('ZREM', KEYS[1], replaced)
end
local ends = redis.call('ZSCORE', KEYS[1], name)
if ends or join then
	redis.call('ZADD', KEYS[1], string.format('%.0f', math.max(tonumber(ends or 0), now + lasts)), name)
end
local size = redis.call('ZCARD', KEYS[1])
local _, joins, first = countsOf(redis.call('GET', KEYS[2]))
local keep = tonumber(ARGV[5])
if joins == 0 then
	joins, first = now, now
else
	keep = math.max(keep, redis.call('PTTL', KEYS[2]))
end
if join then
	joins = joins + 1
end
redis.call('SET', KEYS[2], string.format('%.0f %.0f %.0f', size, joins, first), 'PX', string.format('%.0f', keep))
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.ceil(longest / 1000) + 1))
if not join and redis.call('ZSCORE', KEYS[1], replaced) then
	size = size - 1
end
return string.format('%.0f %d', size, (ends or join) and 1 or 0)
end

local ran, answer = pcall(registered)
if ran then
	return answer
end
local reason = type(answer) == 'table' and answer.err or tostring(answer)
if string.find(reason, 'NOPERM') or string.find(reason, "can't run") or string.find(reason, 'ACL failure') then
	return 'denied'
end
return redis.error_reply(reason)
`

// countsOf is the part of the scripts that reads the counts of the registry.
const countsOf = `
-- Returns how many gateways are registered, the joins ever, and the joins before the first one; 0 if there is no registry.
local function countsOf(value)
	if type(value) ~= 'string' then
		return 0, 0, 0
	end
	local size, joins, first = string.match(value, '^(%d+) (%d+) (%d+)$')
	return tonumber(size or 0), tonumber(joins or 0), tonumber(first or 0)
end
`

// joinsSince is the part of the scripts that knows how many tokens the joins since a value was written have cost its level. If the value is
// from before the registry, or from another one, any of the gateways may have a token that the value does not know of.
const joinsSince = `
local function joinsSince(known, joins, first, standing)
	if joins == 0 then
		return 0
	end
	if known < first or known > joins then
		return joins - first + standing
	end
	return joins - known
end
`
