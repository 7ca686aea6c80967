package store

import (
	"errors"
	"fmt"
	"strings"
)

// errNoScript is Redis's answer to a script that it has not got.
var errNoScript = errors.New("NOSCRIPT: redis forgets the scripts that it is sent")

// replyError returns the error for an error reply. Where Redis cannot serve us at all, rather than this one call, it wraps
// ErrUnavailable.
//
// Redis's own text may hold arguments of the command, and so a client's API key. Nothing of it goes into the error: the
// error says the same in words of ours, of which there are few, so that it may be logged, and sampled by its text.
func replyError(text string) error {
	code, text := splitReply(text)
	if code == "NOSCRIPT" {
		return errNoScript
	}
	for _, one := range replyTexts {
		if one.code != "" && one.code != code || !strings.Contains(text, one.words) {
			continue
		}
		says := one.says
		if strings.Contains(says, "%s") {
			says = fmt.Sprintf(says, commandNamedIn(text))
		}
		if one.away {
			return unavailableError(says)
		}
		return errors.New(says)
	}
	if says := scriptFailure(text); says != "" {
		return errors.New(says)
	}
	return errors.New(unknownReply)
}

const unknownReply = "redis answered with an error that is unknown here; its text is left out, because it may hold a client's key"

// unavailable returns an error that wraps ErrUnavailable.
func unavailableError(says string) error {
	return fmt.Errorf("%w: %s", ErrUnavailable, says)
}

// reasonOf returns what an error that wraps ErrUnavailable says besides, which is what people are told.
func reasonOf(err error) error {
	text := strings.TrimPrefix(err.Error(), ErrUnavailable.Error()+": ")
	// Of an error of the network the addresses go: our port is another one each time.
	if at := strings.Index(text, "->"); at >= 0 {
		if end := strings.Index(text[at:], ": "); end >= 0 {
			text = text[at+end+2:]
		}
	}
	return errors.New(text)
}

// takeApart returns the code of an error reply, and its text without what it repeats of the command.
func splitReply(text string) (code, rest string) {
	if at := strings.Index(text, ", with args beginning with"); at >= 0 {
		text = text[:at]
	}
	// Redis 6 hands a script's error on as "ERR Error running script (call to …): @user_script:2: -OOM …", or with the place twice.
	const place = ": @user_script:"
	if at := strings.Index(text, place); at >= 0 && strings.HasPrefix(text, "ERR Error running script") {
		text = strings.TrimPrefix(strings.TrimLeft(text[at+len(place):], " 0123456789"), ": @user_script:")
		text = strings.TrimLeft(text, " 0123456789:-")
	}
	code = text
	if at := strings.Index(text, " "); at >= 0 {
		code = text[:at]
	}
	return code, text
}

// commandIn returns the command that a text names in quotes, if it is one that we send.
func commandNamedIn(text string) string {
	text = strings.ToUpper(strings.ReplaceAll(text, "`", "'"))
	for _, command := range ourCommands {
		if strings.Contains(text, "'"+command+"'") {
			return command
		}
	}
	return "a command"
}

var ourCommands = []string{
	"EVALSHA", "EVAL", "AUTH", "SELECT", "SCRIPT", "SCRIPT|LOAD",
	"TIME", "GET", "SET", "DEL", "HGETALL", "HSET", "HDEL", "PTTL", "PEXPIRE",
}

// inScript tells of an error that a script of ours ran into, or returns nothing.
func scriptFailure(text string) string {
	const place = "user_script:"
	at := strings.LastIndex(text, place)
	if at < 0 {
		return ""
	}
	line := text[at+len(place):]
	end := 0
	for end < len(line) && end < 5 && line[end] >= '0' && line[end] <= '9' {
		end++
	}
	return "ERR: a script failed in its line " + line[:end]
}

// known is what Redis answers, and what we say of it: the first entry that fits.
var replyTexts = []struct {
	code  string // any, where it is empty
	words string // that the text holds
	says  string // with the name of the command for %s
	away  bool
}{
	{"LOADING", "", "LOADING: redis loads its data", true},
	{"READONLY", "", "READONLY: this redis is a replica", true},
	{"OOM", "", "OOM: redis has reached its maxmemory", true},
	{"NOAUTH", "", "NOAUTH: redis asks for a password", true},
	{"WRONGPASS", "", "WRONGPASS: redis does not know this user, or with another password", true},
	{"NOPERM", "key", "NOPERM: the user has no right to the keys below keyPrefix", true},
	{"NOPERM", "", "NOPERM: the user has no right to %s", true},
	{"MISCONF", "", "MISCONF: redis cannot save its data, and refuses to write", true},
	{"MASTERDOWN", "", "MASTERDOWN: this redis is a replica that has lost its master", true},
	{"BUSY", "", "BUSY: redis runs a script that does not end", true},
	{"NOREPLICAS", "", "NOREPLICAS: redis has too few replicas to write", true},
	{"DENIED", "", "DENIED: redis is in protected mode", true},
	{"MOVED", "", "MOVED: this is a Redis Cluster; name a single Redis", true},
	{"ASK", "", "ASK: this is a Redis Cluster; name a single Redis", true},
	{"CLUSTERDOWN", "", "CLUSTERDOWN: this is a Redis Cluster; name a single Redis", true},
	{"CROSSSLOT", "", "CROSSSLOT: this is a Redis Cluster; name a single Redis", true},
	{"TRYAGAIN", "", "TRYAGAIN: this is a Redis Cluster; name a single Redis", true},
	{"", "non local key in a cluster node", "this is a Redis Cluster; name a single Redis", true},
	{"WRONGTYPE", "", "WRONGTYPE: a key holds what is not ours", false},
	{"ERR", "unknown command", "redis does not know %s: is this a Sentinel, or was the command renamed?", true},
	{"", "Unknown Redis command called from", "redis does not know a command that our scripts call: was it renamed?", true},
	{"ERR", "max number of clients", "ERR: redis has reached its maxclients", true},
	{"", "executing the script can't access", "NOPERM: the user has no right to the keys below keyPrefix", true},
	{"", "executing the script can't", "NOPERM: the user has no right to a command that our scripts call", true},
	{"", "ACL failure in script", "NOPERM: the user has no right to what our scripts do, %s", true},
	{"ERR", "without any password configured", "ERR: a password is given, and redis is without any password configured", true},
	{"ERR", "no password is set", "ERR: a password is given, and redis is without any password configured", true},
	{"ERR", "invalid password", "ERR: redis does not know this user, or with another password", true},
	{"ERR", "wrong number of arguments", "ERR: redis takes other arguments for %s: is it older than Redis 6?", false},
	{"ERR", "DB index is out of range", "ERR: redis has no database of this number, it is out of range", false},
	{"ERR", "SELECT is not allowed in cluster mode", "this is a Redis Cluster; name a single Redis", true},
}
