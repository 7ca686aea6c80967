package ratelimit

// endPenalty is the part of the script inspect about the penalty of a client. A penalty that is ended becomes an entry with the length 0 in the list of
// the latest: penalize reports it to the gateways that read the list.
const endPenalty = `
-- Reports to other gateways that the penalty of KEYS[2] has ended.
local function reportEnd()
	local latest = redis.pcall('GET', KEYS[3])
	if type(latest) == 'table' then
		return -- it is something else
	end
	latest = latest or ''
	local number = tonumber(string.match(latest, '^ (%d+):%d+:%d+:%S')) or 0
	local words, longest = {string.format(' %.0f:%.0f:0:%s', math.max(number + 1, now), now, KEYS[2])}, 60 * 1000000
	for word, ends, key in string.gmatch(latest, '( %d+:(%d+):%d+:(%S+))') do
		if key ~= KEYS[2] and #words < 64 then
			words[#words + 1] = word
			longest = math.max(longest, tonumber(ends) - now)
		end
	end
	redis.call('SET', KEYS[3], table.concat(words), 'PX', string.format('%.0f', math.ceil(longest / 1000)))
end

-- Returns the microseconds that are left of the penalty of KEYS[2], and may end it. A value that is something else stays.
local function penaltyLeft(ending)
	local value = redis.pcall('GET', KEYS[2])
	local ends
	if type(value) ~= 'table' then
		ends = penaltyOf(value)
	end
	if not ends then
		return 0
	end
	local left = math.max(0, ends - now)
	if ending then
		redis.call('DEL', KEYS[2])
		if left > 0 then
			reportEnd()
		end
	end
	return left
end
`

// penaltyKnown returns how long this gateway refuses a client by its penalty, in microseconds.
func penaltyKnown(l *Limiter, key string) int64 {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	return penalisedLocked(peekClientLocked(l, key), l.Now())
}

// forgetPenalty ends the penalty of a client in this gateway, and reports whether there was one.
func forgetPenalty(l *Limiter, key string) bool {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	c := peekClientLocked(l, key)
	penalised := penalisedLocked(c, l.Now()) > 0
	endPenaltyLocked(c)
	return penalised
}

// peekClientLocked returns the client of a key, or nil, and changes nothing.
func peekClientLocked(l *Limiter, key string) *clientPenalty {
	if c := l.clients[key]; c != nil {
		return c
	}
	return l.olderClients[key]
}

// endPenaltyLocked forgets the refusals and penalties of a client.
func endPenaltyLocked(c *clientPenalty) {
	if c == nil {
		return
	}
	c.ends = 0
	c.unreported = 0
	c.length = 0
	c.counted = 0
	c.begun = 0
}
