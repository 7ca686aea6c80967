package store

import (
	"crypto/sha1"
	"encoding/hex"
	"sync"
)

// Script is a Lua script and the name that Redis knows it by. It must answer with one string of integers, separated by
// spaces: the interpreter reads that much faster than an array. It does not change and may be shared.
type Script struct {
	byName   string // the first words of the command that runs it: EVALSHA and its name
	bySource string // the same with EVAL and its source
}

// luaBefore and luaAfter enclose a script. They turn its answer into a reply of one line, which takes one read; a string
// with its length before it takes three.
const (
	luaBefore = "local function script()\n"
	luaAfter  = `
end
local answer = script()
if type(answer) == 'string' then
	return {ok = answer}
end
return answer
`
)

// loadCommandByName holds the commands that load the scripts, by the scripts' names.
var loadCommandByName sync.Map

// NewScript returns the script with the given Lua source. It is meant for package variables: each new connection loads all
// scripts that were ever made.
func NewScript(source string) *Script {
	source = luaBefore + source + luaAfter
	sum := sha1.Sum([]byte(source))
	name := hex.EncodeToString(sum[:])
	loadCommandByName.Store(name, "*3"+newline+Word("SCRIPT")+newline+Word("LOAD")+newline+Word(source)+newline)
	return &Script{
		byName:   Word("EVALSHA") + newline + Word(name) + newline,
		bySource: Word("EVAL") + newline + Word(source) + newline,
	}
}

// loadCommands returns the commands that load all scripts.
func loadCommands() []string {
	var loads []string
	loadCommandByName.Range(func(_, command interface{}) bool {
		loads = append(loads, command.(string))
		return true
	})
	return loads
}
