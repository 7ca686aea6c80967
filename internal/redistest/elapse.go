package redistest

import (
	"strings"
	"testing"
	"time"
)

// moveDeadlines moves the deadlines of all circuits, also those of scopes: the field deadline of each, and those of its probes and uploads.
const moveDeadlines = `
for _, key in ipairs(redis.call('KEYS', '*:breaker*')) do
	local fields = redis.call('HGETALL', key)
	for i = 1, #fields, 2 do
		local isDeadline = fields[i] == 'deadline' or string.match(fields[i], '^probe:%d+$') or string.match(fields[i], '^upload:%d+$')
		if isDeadline and fields[i + 1] ~= '0' then
			redis.call('HINCRBY', key, fields[i], '-' .. ARGV[1])
		end
	end
end`

// Elapse makes circuits in the Redis at an address as they will be after a while. Redis's clock cannot be set, so it moves the deadlines
// back instead. It leaves buckets as they are.
func Elapse(t testing.TB, address string, while time.Duration) {
	t.Helper()
	Connect(t, address).Do("EVAL", moveDeadlines, 0, while.Microseconds())
}

// Connect returns a running server by its address on loopback. It is for commands only.
func Connect(t testing.TB, address string) *Server {
	return &Server{t: t, port: address[strings.LastIndex(address, ":")+1:]}
}
