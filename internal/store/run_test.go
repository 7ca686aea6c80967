package store

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

func TestRun_aScriptThatRedisDoesNotKnow(t *testing.T) {
	server := redistest.Start(t)
	s, n := newStore(t, Settings{Address: server.Addr(), Timeout: patience})
	for i := 0; i < 3; i++ {
		requireAnswers(t, s)
		server.Do("SCRIPT", "FLUSH")
	}
	require.Equal(t, 0, n.count())
}

func TestRun_saysWhichConnectionAnswered(t *testing.T) {
	server := redistest.Start(t)
	s, _ := newStore(t, Settings{Address: server.Addr(), Timeout: patience})
	answeredBy := func(s *Store, count int) int64 {
		var calls []*Call
		for i := 0; i < count; i++ {
			calls = append(calls, &Call{Script: sum, Args: []string{"1", "1"}})
		}
		require.NoError(t, s.Run(calls, time.Now().Add(time.Second)))
		for _, call := range calls {
			require.Equal(t, calls[0].Conn, call.Conn)
		}
		return calls[0].Conn
	}

	first := answeredBy(s, 1)
	require.Greater(t, first, int64(0))
	require.Equal(t, first, answeredBy(s, 1), "the connection was kept")
	require.Equal(t, first, answeredBy(s, 2))
	killConnections(server)
	second := answeredBy(s, 1)
	require.Greater(t, second, first)

	successor, _ := newStore(t, Settings{Address: server.Addr(), Timeout: patience})
	require.Greater(t, answeredBy(successor, 1), second, "a new store, as after a reload, goes on counting")
}

func TestRun_severalCallsInOneRoundTrip(t *testing.T) {
	server := redistest.Start(t)
	s, _ := newStore(t, Settings{Address: server.Addr(), Timeout: patience})
	fails := NewScript(`return redis.error_reply('ERR no')`)
	answersText := NewScript(`return 'text 1'`)
	calls := []*Call{
		{Script: sum, Args: []string{"1", "1"}},
		{Script: fails},
		{Script: sum, Args: []string{"2", "2"}},
		{Script: answersText},
		{Script: sum, Args: []string{"3", "3"}},
	}
	require.NoError(t, s.Run(calls, time.Now().Add(time.Second)))

	require.Equal(t, []int64{2}, calls[0].Reply)
	require.ErrorContains(t, calls[1].Err, "unknown error")
	require.Equal(t, []int64{4}, calls[2].Reply)
	require.ErrorIs(t, calls[3].Err, errBadReply)
	require.Equal(t, []int64{6}, calls[4].Reply)
	require.False(t, s.IsUnavailable())
}

func TestRun_callsOfAnyNumberOfWords(t *testing.T) {
	server := redistest.Start(t)
	s, _ := newStore(t, Settings{Address: server.Addr(), Timeout: patience})
	count := NewScript(`return KEYS[1] .. ' ' .. #KEYS .. ' ' .. #ARGV`)
	for _, words := range []int{2, 9, 10, maxWords - 1, maxWords, maxWords + 1, 2 * maxWords} {
		call := &Call{Script: count, Number: words / 2}
		for i := 0; i < words; i++ {
			call.Words = append(call.Words, Word(strconv.Itoa(i)))
		}
		for i := 0; i < 2; i++ {
			require.NoError(t, s.Run([]*Call{call}, time.Now().Add(time.Second)))
			require.Equal(t, fmt.Sprintf("0 %d %d\r\n", words/2, words-words/2), call.Answer)
		}
	}
}

func TestRun_givesEveryCallItsOwnAnswer(t *testing.T) {
	server := redistest.Start(t)
	s, _ := newStore(t, Settings{Address: server.Addr(), Timeout: patience})
	wrong := &notes{}
	var done sync.WaitGroup
	for worker := 0; worker < 16; worker++ {
		done.Add(1)
		go checkAnswers(s, wrong, &done, int64(worker))
	}
	done.Wait()
	require.Equal(t, 0, wrong.count())
	require.LessOrEqual(t, idleCount(s), maxIdle)
}

func checkAnswers(s *Store, wrong *notes, done *sync.WaitGroup, worker int64) {
	defer done.Done()
	for i := int64(0); i < 50; i++ {
		call := &Call{Script: sum, Args: []string{strconv.FormatInt(worker*1000, 10), strconv.FormatInt(i, 10)}}
		s.Run([]*Call{call}, time.Now().Add(5*time.Second))
		if call.Err != nil {
			wrong.add(call.Err)
		} else if call.Reply[0] != worker*1000+i {
			wrong.add(errors.New("the answer of another call"))
		}
	}
}

// Many requests wait for a connection, and each ends at its own deadline.
func TestRun_manyRequestsWait(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // it accepts connections, and says nothing
	require.NoError(t, err)
	defer silent.Close()
	s, _ := newStore(t, Settings{Address: silent.Addr().String(), Password: "p"})
	s.settings.DialTimeout = 10 * time.Second
	late := redistest.Late(t)
	behind := make(chan time.Duration)
	begun := time.Now()
	for i := 0; i < 1000; i++ {
		go waitUntil(s, begun.Add(300*time.Millisecond+time.Duration(i)*100*time.Microsecond), behind)
	}
	longest := time.Duration(0)
	for i := 0; i < 1000; i++ {
		took := <-behind
		if took > longest {
			longest = took
		}
	}
	t.Logf("the latest returned %s after its deadline", longest)
	require.Less(t, longest, 100*time.Millisecond+late())
}

func waitUntil(s *Store, deadline time.Time, behind chan time.Duration) {
	s.Run([]*Call{{Script: sum, Args: []string{"1", "1"}}}, deadline)
	behind <- time.Since(deadline)
}

func TestClose_laterCallsAreServed(t *testing.T) {
	server := redistest.Start(t)
	s, _ := newUsedStore(t, Settings{Address: server.Addr()})
	s.Close()
	requireAnswers(t, s) // an old handler may still have requests
	require.Equal(t, 0, idleCount(s))
}

func TestDial_logsIn(t *testing.T) {
	withPassword := redistest.Start(t, "--requirepass", "s3cret")
	withUser := redistest.Start(t, "--user", "gateway", "on", ">pass", "~*", "+@all", "--user", "default", "off")
	const otherPassword = "0ther"
	for _, row := range []struct {
		name     string
		settings Settings
		reason   string // "": it succeeds
	}{
		{"password", Settings{Address: withPassword.Addr(), Password: "s3cret"}, ""},
		{"password and database", Settings{Address: withPassword.Addr(), Password: "s3cret", DB: 3}, ""},
		{"no password", Settings{Address: withPassword.Addr()}, "NOAUTH"},
		{"wrong password", Settings{Address: withPassword.Addr(), Password: otherPassword}, "WRONGPASS"},
		{"user", Settings{Address: withUser.Addr(), Username: "gateway", Password: "pass"}, ""},
		{"unknown user", Settings{Address: withUser.Addr(), Username: "nobody", Password: "pass"}, "WRONGPASS"},
		{"no such database", Settings{Address: withPassword.Addr(), Password: "s3cret", DB: 99}, "out of range"},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			s, n := newStore(t, row.settings)
			if row.reason == "" {
				requireAnswers(t, s)
				return
			}
			requireUnavailable(t, s)
			n.await(t, 1)
			require.ErrorContains(t, n.get(0), row.reason)
			require.NotContains(t, n.get(0).Error(), otherPassword)
		})
	}
}
