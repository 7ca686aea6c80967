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

var sum = NewScript(`return string.format('%d', ARGV[1] + ARGV[2])`)

// notes collects what a store says of itself. It is safe for concurrent use.
type notes struct {
	mu      sync.Mutex
	reasons []error
}

func (n *notes) add(reason error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.reasons = append(n.reasons, reason)
}

func (n *notes) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.reasons)
}

// await waits for so many notes, of which the last may come a moment after what it tells of.
func (n *notes) await(t *testing.T, count int) {
	t.Helper()
	require.Eventually(t, func() bool { return n.count() >= count }, 5*time.Second, time.Millisecond)
	require.Equal(t, count, n.count())
}

func (n *notes) get(i int) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.reasons[i]
}

func open(t *testing.T, settings Settings) (*Store, *notes) {
	settings.Timeout = 200 * time.Millisecond
	settings.DialTimeout = time.Second
	settings.KeyPrefix = "test"
	n := &notes{}
	s := New(settings, n.add)
	t.Cleanup(s.Close)
	return s, n
}

func add(s *Store, a, b string) (int64, error) {
	call := &Call{Script: sum, Args: []string{a, b}}
	err := s.Run([]*Call{call}, time.Now().Add(s.settings.Timeout))
	if err != nil {
		return 0, err
	}
	if call.Err != nil {
		return 0, call.Err
	}
	return call.Reply[0], nil
}

func isUp(s *Store) func() bool {
	return func() bool { return !s.IsUnavailable() }
}

func TestStore_runsAScriptThatRedisHasNotGot(t *testing.T) {
	server := redistest.Start(t)
	s, n := open(t, Settings{Address: server.Addr()})

	for i := 0; i < 3; i++ {
		answer, err := add(s, "1", "2")
		require.NoError(t, err)
		require.Equal(t, int64(3), answer)
		server.Do("SCRIPT", "FLUSH")
	}
	require.Equal(t, 0, n.count())
}

func TestStore_tellsWhichConnectionAnswered(t *testing.T) {
	server := redistest.Start(t)
	s, _ := open(t, Settings{Address: server.Addr()})
	answeredBy := func(calls ...*Call) int64 {
		require.NoError(t, s.Run(calls, time.Now().Add(time.Second)))
		for _, call := range calls {
			require.Equal(t, calls[0].Conn, call.Conn)
		}
		return calls[0].Conn
	}
	alone := func() *Call { return &Call{Script: sum, Args: []string{"1", "1"}} }

	first := answeredBy(alone())
	require.Greater(t, first, int64(0))
	require.Equal(t, first, answeredBy(alone()), "the connection was kept")
	require.Equal(t, first, answeredBy(alone(), alone()))
	server.Do("CLIENT", "KILL", "TYPE", "normal")
	second := answeredBy(alone())
	require.Greater(t, second, first)

	other, _ := open(t, Settings{Address: server.Addr()})
	s = other
	require.Greater(t, answeredBy(alone()), second, "a store that takes over, as after a reload, counts on")
}

func TestStore_runsManyCallsInOneRoundTrip(t *testing.T) {
	server := redistest.Start(t)
	s, _ := open(t, Settings{Address: server.Addr()})
	broken := NewScript(`return redis.error_reply('ERR no')`)
	unfit := NewScript(`return 'text 1'`)

	calls := []*Call{
		{Script: sum, Args: []string{"1", "1"}},
		{Script: broken},
		{Script: sum, Args: []string{"2", "2"}},
		{Script: unfit},
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

func TestStore_sendsACallOfVeryManyWords(t *testing.T) {
	server := redistest.Start(t)
	s, _ := open(t, Settings{Address: server.Addr()})
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

func TestStore_isDownWhenTheInterpreterStumbles(t *testing.T) {
	server := redistest.Start(t)
	s, n := open(t, Settings{Address: server.Addr()})
	s.idle = append(s.idle, &conn{})
	call := &Call{Script: sum, Args: []string{"1", "1"}}
	require.ErrorIs(t, s.Run([]*Call{call}, time.Now().Add(time.Second)), ErrUnavailable)
	require.ErrorIs(t, call.Err, ErrUnavailable)
	n.await(t, 1)
	require.ErrorContains(t, n.get(0), "panic")

	require.Eventually(t, isUp(s), 2*time.Second, 5*time.Millisecond)
	answer, err := add(s, "2", "2")
	require.NoError(t, err)
	require.Equal(t, int64(4), answer)
}

func TestStore_logsIn(t *testing.T) {
	withPassword := redistest.Start(t, "--requirepass", "s3cret")
	withUser := redistest.Start(t, "--user", "gateway", "on", ">pass", "~*", "+@all", "--user", "default", "off")
	rows := []struct {
		name     string
		settings Settings
		reason   string
	}{
		{"password", Settings{Address: withPassword.Addr(), Password: "s3cret"}, ""},
		{"password and database", Settings{Address: withPassword.Addr(), Password: "s3cret", DB: 3}, ""},
		{"no password", Settings{Address: withPassword.Addr()}, "NOAUTH"},
		{"wrong password", Settings{Address: withPassword.Addr(), Password: "0ther"}, "WRONGPASS"},
		{"user", Settings{Address: withUser.Addr(), Username: "gateway", Password: "pass"}, ""},
		{"unknown user", Settings{Address: withUser.Addr(), Username: "nobody", Password: "pass"}, "WRONGPASS"},
		{"no such database", Settings{Address: withPassword.Addr(), Password: "s3cret", DB: 99}, "out of range"},
	}
	for _, row := range rows {
		row := row
		t.Run(row.name, func(t *testing.T) {
			s, n := open(t, row.settings)
			answer, err := add(s, "20", "3")
			if row.reason == "" {
				require.NoError(t, err)
				require.Equal(t, int64(23), answer)
				return
			}
			require.ErrorIs(t, err, ErrUnavailable)
			n.await(t, 1)
			require.ErrorContains(t, n.get(0), row.reason)
			require.NotContains(t, n.get(0).Error(), "0ther", "the password")
		})
	}
}

func TestStore_answersAtOnceWhileRedisIsAway(t *testing.T) {
	late := redistest.Late(t)
	s, n := open(t, Settings{Address: "127.0.0.1:" + redistest.FreePort(t)})
	_, err := add(s, "1", "1")
	require.ErrorIs(t, err, ErrUnavailable)
	require.True(t, s.IsUnavailable())
	n.await(t, 1)

	begun := time.Now()
	for i := 0; i < 100; i++ {
		_, err := add(s, "1", "1")
		require.ErrorIs(t, err, ErrUnavailable)
	}
	require.Less(t, time.Since(begun), 100*time.Millisecond+late())
	require.Equal(t, 1, n.count(), "one note for one change")
}

func TestStore_comesBackAfterARestartOfRedis(t *testing.T) {
	server := redistest.Start(t)
	s, n := open(t, Settings{Address: server.Addr()})
	_, err := add(s, "1", "1")
	require.NoError(t, err)

	server.Kill()
	_, err = add(s, "1", "1")
	require.ErrorIs(t, err, ErrUnavailable)
	require.True(t, s.IsUnavailable())

	server.Run()
	require.Eventually(t, isUp(s), 2*time.Second, 5*time.Millisecond)
	answer, err := add(s, "2", "2")
	require.NoError(t, err)
	require.Equal(t, int64(4), answer)
	n.await(t, 2)
	require.Nil(t, n.get(1))
}

func TestStore_dialsAnewForAConnectionThatDiedIdle(t *testing.T) {
	server := redistest.Start(t)
	s, n := open(t, Settings{Address: server.Addr()})
	_, err := add(s, "1", "1")
	require.NoError(t, err)

	server.Kill()
	server.Run()
	answer, err := add(s, "2", "2")
	require.NoError(t, err)
	require.Equal(t, int64(4), answer)
	require.Equal(t, 0, n.count())
}

func TestStore_isDownWhenRedisDoesNotAnswerInTime(t *testing.T) {
	server := redistest.Start(t)
	s, _ := open(t, Settings{Address: server.Addr()})
	_, err := add(s, "1", "1")
	require.NoError(t, err)

	late := redistest.Late(t)
	server.Pause()
	defer server.Resume()
	begun := time.Now()
	_, err = add(s, "1", "1")
	require.ErrorIs(t, err, ErrUnavailable)
	require.Less(t, time.Since(begun), s.settings.Timeout+100*time.Millisecond+late())
	require.Eventually(t, s.IsUnavailable, time.Second, time.Millisecond, "at once, but where this process was halted")

	server.Resume()
	require.Eventually(t, isUp(s), 2*time.Second, 5*time.Millisecond)
	answer, err := add(s, "4", "4")
	require.NoError(t, err)
	require.Equal(t, int64(8), answer, "not the answer to the call that was given up")
}

func TestStore_isDownWhenRedisRefusesToWrite(t *testing.T) {
	write := NewScript(`redis.call('SET', KEYS[1], 'x') return '1'`)
	server := redistest.Start(t)
	rows := []struct {
		name       string
		begin, end []interface{}
	}{
		{name: "a replica", begin: []interface{}{"REPLICAOF", "127.0.0.1", "1"}, end: []interface{}{"REPLICAOF", "NO", "ONE"}},
		{name: "out of memory", begin: []interface{}{"CONFIG", "SET", "maxmemory", "1"}, end: []interface{}{"CONFIG", "SET", "maxmemory", "0"}},
		{name: "a right taken away", begin: []interface{}{"ACL", "SETUSER", "default", "-set"}, end: []interface{}{"ACL", "SETUSER", "default", "+set"}},
		{name: "keys taken away", begin: []interface{}{"ACL", "SETUSER", "default", "resetkeys"}, end: []interface{}{"ACL", "SETUSER", "default", "~*"}},
	}
	for _, row := range rows {
		row := row
		t.Run(row.name, func(t *testing.T) {
			s, n := open(t, Settings{Address: server.Addr()})
			run := func() error {
				call := &Call{Script: write, Keys: []string{"test:key"}}
				s.Run([]*Call{call}, time.Now().Add(s.settings.Timeout))
				return call.Err
			}
			require.NoError(t, run())
			server.Do(row.begin[0].(string), row.begin[1:]...)
			require.ErrorIs(t, run(), ErrUnavailable)
			require.True(t, s.IsUnavailable())
			time.Sleep(300 * time.Millisecond)
			require.True(t, s.IsUnavailable(), "a Redis that answers but does not write is not back")
			server.Do(row.end[0].(string), row.end[1:]...)
			require.Eventually(t, isUp(s), 2*time.Second, 5*time.Millisecond)
			require.NoError(t, run())
			n.await(t, 2)
		})
	}
}

func TestStore_keepsNoConnectionThatCameTooLate(t *testing.T) {
	server := redistest.Start(t)
	s, _ := open(t, Settings{Address: server.Addr()})
	s.dialing++
	s.markUnavailable(errors.New("the test says so"))
	s.dial()
	require.Len(t, s.idle, 0, "by the time Redis is back it may be dead, and would count as a fresh one that failed")
	require.Equal(t, 0, s.dialing)
}

func TestStore_givesEveryCallItsOwnAnswer(t *testing.T) {
	server := redistest.Start(t)
	s, _ := open(t, Settings{Address: server.Addr()})
	wrong := &notes{}
	var done sync.WaitGroup
	for worker := 0; worker < 16; worker++ {
		done.Add(1)
		go checkAnswers(s, wrong, &done, int64(worker))
	}
	done.Wait()
	require.Equal(t, 0, wrong.count())
	require.LessOrEqual(t, len(s.idle), maxIdle)
}

func checkAnswers(s *Store, wrong *notes, done *sync.WaitGroup, worker int64) {
	defer done.Done()
	for i := int64(0); i < 50; i++ {
		call := &Call{Script: sum, Args: []string{strconv.FormatInt(worker*1000, 10), strconv.FormatInt(i, 10)}}
		s.Run([]*Call{call}, time.Now().Add(5*time.Second))
		if call.Err != nil {
			wrong.add(call.Err)
		} else if call.Reply[0] != worker*1000+i {
			wrong.add(errors.New("another's answer"))
		}
	}
}

func TestStore_servesOnAfterItsClose(t *testing.T) {
	server := redistest.Start(t)
	s, _ := open(t, Settings{Address: server.Addr()})
	_, err := add(s, "1", "1")
	require.NoError(t, err)
	s.Close()

	answer, err := add(s, "1", "1")
	require.NoError(t, err, "an old handler may still have requests")
	require.Equal(t, int64(2), answer)
	require.Len(t, s.idle, 0)
}

// Many requests wait, and each has a deadline of its own: none of them costs the others anything.
func TestStore_letsManyWait(t *testing.T) {
	hung, err := net.Listen("tcp", "127.0.0.1:0") // it accepts connections, and says nothing
	require.NoError(t, err)
	defer hung.Close()
	s, _ := open(t, Settings{Address: hung.Addr().String(), Password: "p"})
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
	t.Logf("the latest came back %s behind its deadline", longest)
	require.Less(t, longest, 100*time.Millisecond+late())
}

func waitUntil(s *Store, deadline time.Time, behind chan time.Duration) {
	s.Run([]*Call{{Script: sum, Args: []string{"1", "1"}}}, deadline)
	behind <- time.Since(deadline)
}
