package store

import (
	"errors"
	"fmt"
	"strings"
)

// errNoScript is Redis's answer to a script that it does not know.
var errNoScript = errors.New("NOSCRIPT: redis does not keep the scripts that it is sent")

// replyError returns the error for an error reply. It wraps ErrUnavailable if Redis cannot serve us at all, rather than this
// one call.
//
// Redis's own text may contain arguments of the command, such as a client's API key. Nothing of it goes into the error: the
// error uses one of few texts of ours, so that it may be logged, and logs can be sampled by it.
func replyError(text string) error {
	code, text := splitReply(text)
	if code == "NOSCRIPT" {
		return errNoScript
	}
	for _, one := range replyTexts {
		if one.code != "" && one.code != code || !strings.Contains(text, one.contains) {
			continue
		}
		message := one.message
		if strings.Contains(message, "%s") {
			message = fmt.Sprintf(message, commandNamedIn(text))
		}
		if one.unavailable {
			return unavailableError(message)
		}
		return errors.New(message)
	}
	if message := scriptFailure(text); message != "" {
		return errors.New(message)
	}
	return errors.New(unknownReply)
}

const unknownReply = "redis answered with an unknown error; its text is left out because it may contain a client's key"

// unavailableError returns an error that wraps ErrUnavailable.
func unavailableError(message string) error {
	return fmt.Errorf("%w: %s", ErrUnavailable, message)
}

// reasonOf returns what an error that wraps ErrUnavailable adds to it: the text for operators.
func reasonOf(err error) error {
	text := strings.TrimPrefix(err.Error(), ErrUnavailable.Error()+": ")
	// A network error loses its addresses: our port differs each time.
	if at := strings.Index(text, "->"); at >= 0 {
		if end := strings.Index(text[at:], ": "); end >= 0 {
			text = text[at+end+2:]
		}
	}
	return errors.New(text)
}

// splitReply returns the code of an error reply, and its text without what repeats the command.
func splitReply(text string) (code, rest string) {
	if at := strings.Index(text, ", with args beginning with"); at >= 0 {
		text = text[:at]
	}
	// Redis 6 wraps a script's error as "ERR Error running script (call to …): @user_script:2: -OOM …", or with the place twice.
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

// commandNamedIn returns the command that a text names in quotes, if it is one that we send.
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
	"ROLE", "SENTINEL|GET-MASTER-ADDR-BY-NAME", "SENTINEL", "CLUSTER|SLOTS", "CLUSTER", "ASKING",
	"TIME", "GET", "SET", "DEL", "HGETALL", "HSET", "HDEL", "PTTL", "PEXPIRE",
}

// scriptFailure describes an error inside a script of ours; it returns nothing for other errors.
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
	return "ERR: a script failed at line " + line[:end]
}

// replyTexts are the errors that Redis answers with, and our text for each. The first entry that matches counts.
var replyTexts = []struct {
	code        string // "": any
	contains    string // what the text must contain
	message     string // %s stands for the command
	unavailable bool   // Redis cannot serve us at all
}{
	{"LOADING", "", "LOADING: redis is loading its data", true},
	{"READONLY", "", "READONLY: this redis is a replica", true},
	{"OOM", "", "OOM: redis has reached its maxmemory", true},
	{"NOAUTH", "", "NOAUTH: redis requires a password", true},
	{"WRONGPASS", "", "WRONGPASS: unknown user or wrong password", true},
	{"NOPERM", "key", "NOPERM: the user may not access the keys below keyPrefix", true},
	{"NOPERM", "", "NOPERM: the user may not run %s", true},
	{"MISCONF", "", "MISCONF: redis cannot save its data and refuses writes", true},
	{"MASTERDOWN", "", "MASTERDOWN: this redis is a replica that has lost its master", true},
	{"BUSY", "", "BUSY: redis is running a script that does not end", true},
	{"NOREPLICAS", "", "NOREPLICAS: redis has too few replicas to accept writes", true},
	{"DENIED", "", "DENIED: redis is in protected mode", true},
	{"MOVED", "", "MOVED: this is a Redis Cluster; write redis.cluster: true", true},
	{"ASK", "", "ASK: this is a Redis Cluster; write redis.cluster: true", true},
	{"CLUSTERDOWN", "", "CLUSTERDOWN: this Redis Cluster does not serve all slots", true},
	{"CROSSSLOT", "", "CROSSSLOT: this is a Redis Cluster; write redis.cluster: true", true},
	{"TRYAGAIN", "", "TRYAGAIN: this is a Redis Cluster; write redis.cluster: true", true},
	{"", "non local key in a cluster node", "this is a Redis Cluster; write redis.cluster: true", true},
	{"WRONGTYPE", "", "WRONGTYPE: the key holds data that is not ours", false},
	{"ERR", "unknown command", "redis does not know %s: is this a Sentinel, or was the command renamed?", true},
	{"", "command called from", "redis does not know a command that our scripts call: was it renamed?", true},
	{"ERR", "max number of clients", "ERR: redis has reached its maxclients", true},
	{"", "executing the script can't access", "NOPERM: the user may not access the keys below keyPrefix", true},
	{"", "executing the script can't", "NOPERM: the user may not run a command that our scripts call", true},
	{"", "ACL failure in script", "NOPERM: the user may not run a command that our scripts call: %s", true},
	{"ERR", "without any password configured", "ERR: a password is given, but redis has none configured", true},
	{"ERR", "no password is set", "ERR: a password is given, but redis has none configured", true},
	{"ERR", "invalid password", "ERR: unknown user or wrong password", true},
	{"ERR", "wrong number of arguments", "ERR: wrong number of arguments for %s: is this redis older than version 6?", false},
	{"ERR", "DB index is out of range", "ERR: the database number is out of range", false},
	{"ERR", "instance has cluster support disabled", "this redis is not a node of a cluster", true},
	{"ERR", "SELECT is not allowed in cluster mode", "this is a Redis Cluster; write redis.cluster: true", true},
}
