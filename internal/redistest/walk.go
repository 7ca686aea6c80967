package redistest

import (
	"strconv"
	"strings"

	"github.com/gomodule/redigo/redis"
	"github.com/stretchr/testify/require"
)

// Step is one run of a script, at a time of the test's choice.
type Step struct {
	Script int   // its index
	At     int64 // what Redis's clock says, microseconds
	Keys   []string
	Args   []string
}

// driver runs scripts as functions, at the steps' times. The scripts see another redis table, in which TIME is the step's and
// keys expire by it.
//
//	ARGV     for each step: index of the script, time in microseconds, number of keys, number of arguments, keys, arguments
//	answers  the scripts' answers, in order
const driver = `local server, now = redis, 0

local function expire(key)
	local expires = server.call('GET', 'due:' .. key)
	if expires and tonumber(expires) <= now then
		server.call('DEL', key, 'due:' .. key)
	end
end

local function keepUntil(key, milliseconds)
	server.call('SET', 'due:' .. key, string.format('%.0f', now + milliseconds * 1000))
end

local commands = {
	TIME = function()
		return {string.format('%.0f', math.floor(now / 1000000)), string.format('%.0f', now % 1000000)}
	end,
	SET = function(how, key, value, px, milliseconds, ...)
		assert(px == 'PX' and tonumber(milliseconds) > 0)
		local reply = how('SET', key, value, ...)
		if not reply or reply.ok then
			keepUntil(key, milliseconds)
		end
		return reply
	end,
	PEXPIRE = function(how, key, milliseconds)
		keepUntil(key, milliseconds)
	end,
	PTTL = function(how, key)
		return math.floor((tonumber(server.call('GET', 'due:' .. key)) - now) / 1000)
	end,
}

local function call(how)
	return function(command, key, ...)
		if command ~= 'TIME' then
			expire(key)
		end
		if commands[command] then
			return commands[command](how, key, ...)
		end
		return how(command, key, ...)
	end
end

local redis = {call = call(server.call), pcall = call(server.pcall)}
local scripts = {SCRIPTS}

local answers, i = {}, 1
while i <= #ARGV do
	local script, keys, args = tonumber(ARGV[i]) + 1, {}, {}
	now = tonumber(ARGV[i + 1])
	local lastKey = i + 3 + tonumber(ARGV[i + 2])
	local lastArg = lastKey + tonumber(ARGV[i + 3])
	for k = i + 4, lastKey do
		keys[#keys + 1] = ARGV[k]
	end
	for k = lastKey + 1, lastArg do
		args[#args + 1] = ARGV[k]
	end
	answers[#answers + 1] = scripts[script](keys, args)
	i = lastArg + 1
end
return answers
`

// Walk runs the steps one after another in the server, each at its time, and returns the integers that each answered with.
func (s *Server) Walk(scripts []string, steps []Step) [][]int64 {
	s.t.Helper()
	texts := s.WalkTexts(scripts, steps)
	answers := make([][]int64, len(texts))
	for i, text := range texts {
		for _, word := range strings.FieldsFunc(text, isGap) {
			n, err := strconv.ParseInt(word, 10, 64)
			require.NoError(s.t, err, "step %d: %v", i, steps[i])
			answers[i] = append(answers[i], n)
		}
	}
	return answers
}

// WalkTexts is Walk for scripts whose answers are not only integers.
func (s *Server) WalkTexts(scripts []string, steps []Step) []string {
	s.t.Helper()
	var functions []string
	for _, script := range scripts {
		functions = append(functions, "function(KEYS, ARGV)\n"+script+"\nend")
	}
	args := []interface{}{strings.Replace(driver, "SCRIPTS", strings.Join(functions, ",\n"), 1), 0}
	for _, step := range steps {
		args = append(args, step.Script, strconv.FormatInt(step.At, 10), len(step.Keys), len(step.Args))
		for _, text := range append(append([]string{}, step.Keys...), step.Args...) {
			args = append(args, text)
		}
	}
	replies, err := redis.Values(s.Do("EVAL", args...), nil)
	require.NoError(s.t, err)
	require.Len(s.t, replies, len(steps))
	answers := make([]string, len(replies))
	for i, reply := range replies {
		answers[i], err = redis.String(reply, nil)
		require.NoError(s.t, err, "step %d: %v", i, steps[i])
	}
	return answers
}

func isGap(r rune) bool { return r == ' ' || r == ':' }
