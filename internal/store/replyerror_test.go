package store

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The texts are those of Redis's versions. sk_live_5 stands where a version repeats a client's argument.
func TestReplyError(t *testing.T) {
	rows := []struct {
		text, message string
		unavailable   bool
	}{
		// 5 and 6, then 7
		{"ERR unknown command `EVALSHA`, with args beginning with: `f`, `1`, `bucket:header:sk_live_5`, ", "redis does not know EVALSHA: is this a Sentinel, or was the command renamed?", true},
		{"ERR unknown command 'EVALSHA', with args beginning with: 'f' '1' 'bucket:header:sk_live_5' ", "redis does not know EVALSHA: is this a Sentinel, or was the command renamed?", true},
		{"ERR unknown command 'evalsha'", "redis does not know EVALSHA: is this a Sentinel, or was the command renamed?", true},
		{"ERR unknown command 'sk_live_5'", "redis does not know a command: is this a Sentinel, or was the command renamed?", true},
		{"ERR Error running script (call to f_ab): @user_script:3: @user_script: 3: Unknown Redis command called from Lua script ", "redis does not know a command that our scripts call: was it renamed?", true},
		{"ERR Unknown command called from script script: on @user_script:1.", "redis does not know a command that our scripts call: was it renamed?", true},
		{"ERR Unknown Redis command called from script script: ab, on @user_script:3.", "redis does not know a command that our scripts call: was it renamed?", true},
		{"ERR Error running script (call to f_ab): @user_script:3: -OOM command not allowed when used memory > 'maxmemory'. ", "OOM: redis has reached its maxmemory", true},
		{"OOM command not allowed when used memory > 'maxmemory'. script: ab, on @user_script:3.", "OOM: redis has reached its maxmemory", true},
		{"ERR Error running script (call to f_ab): @user_script:3: -READONLY You can't write against a read only replica. ", "READONLY: this redis is a replica", true},
		{"ERR Error running script (call to f_ab): @user_script:3: The user executing the script can't run this command or subcommand ", "NOPERM: the user may not run a command that our scripts call", true},
		{"ERR The user executing the script can't access at least one of the keys mentioned in the command arguments script: ab, on @user_script:1.", "NOPERM: the user may not access the keys below keyPrefix", true},
		{"ERR ACL failure in script: User gateway has no permissions to run the 'hset' command script: ab, on @user_script:1.", "NOPERM: the user may not run a command that our scripts call: HSET", true},
		{"NOPERM this user has no permissions to run the 'evalsha' command or its subcommand", "NOPERM: the user may not run EVALSHA", true},
		{"NOPERM User sk_live_5 has no permissions to run the 'script|load' command", "NOPERM: the user may not run SCRIPT|LOAD", true},
		{"NOPERM User gateway has no permissions to access the 'resilience:{gateway}:bucket:header:sk_live_5' key", "NOPERM: the user may not access the keys below keyPrefix", true},
		{"NOPERM No permissions to access a key", "NOPERM: the user may not access the keys below keyPrefix", true},
		{"MOVED 3999 127.0.0.1:6381", "MOVED: this is a Redis Cluster; write redis.cluster: true", true},
		{"ASK 3999 127.0.0.1:6381", "ASK: this is a Redis Cluster; write redis.cluster: true", true},
		{"CLUSTERDOWN Hash slot not served", "CLUSTERDOWN: this Redis Cluster does not serve all slots", true},
		{"ERR Script attempted to access a non local key in a cluster node script: ab, on @user_script:1.", "this is a Redis Cluster; write redis.cluster: true", true},
		{"BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.", "BUSY: redis is running a script that does not end", true},
		{"NOAUTH Authentication required.", "NOAUTH: redis requires a password", true},
		{"ERR max number of clients reached", "ERR: redis has reached its maxclients", true},
		{"WRONGTYPE Operation against a key holding the wrong kind of value script: ab, on @user_script:1.", "WRONGTYPE: the key holds data that is not ours", false},
		{"ERR Error running script (call to f_ab): @user_script:8: WRONGTYPE Operation against a key holding the wrong kind of value", "WRONGTYPE: the key holds data that is not ours", false},
		{"ERR user_script:12: sk_live_5 is not a number script: ab, on @user_script:12.", "ERR: a script failed at line 12", false},
		{"ERR Error running script (call to f_ab): @user_script:12: user_script:12: attempt to compare nil with number ", "ERR: a script failed at line 12", false},
		{"ERR user_script:999999999: sk_live_5", "ERR: a script failed at line 99999", false},
		{"ERR invalid sk_live_5", unknownReply, false},
		{"sk_live_5", unknownReply, false},
		{"", unknownReply, false},
		// A client's key must not be taken for Redis's text.
		{"ERR something, with args beginning with: 'LOADING' 'max number of clients' 'MOVED'", unknownReply, false},
		{"BUSYKEY Target key name already exists.", unknownReply, false},
	}
	for _, row := range rows {
		err := replyError(row.text)
		if row.unavailable {
			require.ErrorIs(t, err, ErrUnavailable, row.text)
			require.Equal(t, row.message, reasonOf(err).Error(), row.text)
		} else {
			require.False(t, errors.Is(err, ErrUnavailable), row.text)
			require.EqualError(t, err, row.message, row.text)
		}
	}
	require.Equal(t, errNoScript, replyError("NOSCRIPT No matching script. Please use EVAL."))
}

// Log lines are sampled by their text: a client that chooses its key must not choose the text.
func TestReplyError_usesFewTexts(t *testing.T) {
	said := map[string]bool{}
	for _, one := range replyTexts {
		for _, secret := range []string{"sk_live_1", "sk_live_2", "'sk_live_3'", "sk live 4"} {
			for _, text := range []string{
				one.code + " " + one.contains + " " + secret,
				one.code + " " + one.contains + " '" + secret + "'",
				one.code + " " + secret + " " + one.contains + ", with args beginning with: '" + secret + "' ",
			} {
				err := replyError(text)
				require.False(t, strings.Contains(err.Error(), "live"), err.Error())
				said[err.Error()] = true
			}
		}
	}
	require.True(t, len(said) <= len(replyTexts), "%v", said)
}

func TestReasonOf_omitsAddresses(t *testing.T) {
	for text, reason := range map[string]string{
		"read tcp 127.0.0.1:40000->127.0.0.1:6379: read: connection reset by peer": "read: connection reset by peer",
		"write tcp [::1]:40000->[::1]:6379: write: broken pipe":                    "write: broken pipe",
		"dial tcp 127.0.0.1:6379: connect: connection refused":                     "dial tcp 127.0.0.1:6379: connect: connection refused",
		"EOF": "EOF",
	} {
		require.Equal(t, reason, reasonOf(errors.New(text)).Error())
		require.Equal(t, reason, reasonOf(unavailableError(text)).Error())
	}
}
