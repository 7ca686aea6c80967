package store

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// followed is how a store followed a change of the master while it was called.
type followed struct {
	calls, failed int
	back          time.Duration // from the announcement of the new master to its first answer
}

// follow makes calls that write, all the time, until the announced master has answered after a change.
func follow(t *testing.T, s *Store, change func(), announced func() *redistest.Server) followed {
	t.Helper()
	var f followed
	f.call(t, s)
	require.Equal(t, 0, f.failed)
	var server *redistest.Server
	known := make(chan time.Time, 1)
	go func() {
		defer func() { recover() }()
		change()
		server = announced()
		known <- time.Now()
	}()
	var since time.Time
	require.Eventually(t, func() bool {
		last := f.call(t, s)
		if since.IsZero() && len(known) > 0 {
			at := <-known
			since = at
		}
		if !since.IsZero() && last == nil && server.Int("EXISTS", "test:{a}:key") == 1 {
			f.back = time.Since(since)
			server.Do("DEL", "test:{a}:key")
			return f.call(t, s) == nil && server.Int("EXISTS", "test:{a}:key") == 1
		}
		return false
	}, 60*time.Second, 2*time.Millisecond, "the new master is used")
	return f
}

var mark = NewScript(`redis.call('SET', KEYS[1], ARGV[1]) return '1'`)

// call makes one call. It must not take longer than its time.
func (f *followed) call(t *testing.T, s *Store) error {
	t.Helper()
	begun := time.Now()
	err := runOne(s, &Call{Script: mark, Keys: []string{"test:{a}:key"}, Args: []string{"x"}, Once: true})
	require.True(t, time.Since(begun) < s.settings.Timeout+500*time.Millisecond, "a call took %s", time.Since(begun))
	f.calls++
	if err != nil {
		f.failed++
		require.True(t, errors.Is(err, ErrUnavailable), err)
	}
	return err
}

func newSentinelStore(t *testing.T, g *redistest.Group) (*Store, *notes) {
	return newStore(t, Settings{Address: g.Addresses(), Sentinel: &SentinelSettings{Master: redistest.MasterName}})
}

// From the time when sentinels announce another master, two seconds pass at most.
func TestSentinel_aNewMasterIsUsed(t *testing.T) {
	g := redistest.StartGroup(t, 3, 3, 500*time.Millisecond)
	for _, row := range []struct {
		name       string
		begin, end func(master *redistest.Server)
		notes      int // at most
	}{
		{"killed", func(m *redistest.Server) { m.Kill() }, func(m *redistest.Server) { m.Run() }, 2},
		{"demoted by hand", func(m *redistest.Server) { g.FailOver(1, m) }, func(m *redistest.Server) {}, 2},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			g.AwaitReady()
			s, n := newSentinelStore(t, g)
			late := redistest.Late(t)
			master := g.Announced(0)
			lost := s.Lost()
			f := follow(t, s, func() { row.begin(master) }, func() *redistest.Server { return g.AwaitMaster(master) })
			row.end(master)
			t.Logf("%d calls, %d failed; back after %s", f.calls, f.failed, f.back)
			require.Less(t, f.back, 2*time.Second+late())
			require.LessOrEqual(t, n.count(), row.notes)
			require.Greater(t, s.Lost(), lost, "the new master may have less data")
		})
	}
}

// Without sentinels, the last known master is used for as long as it is one.
func TestSentinel_noneIsNeededWhileTheMasterWorks(t *testing.T) {
	g := redistest.StartGroup(t, 2, 2, time.Minute)
	s, n := newSentinelStore(t, g)
	requireAnswers(t, s)
	for _, sentinel := range g.Sentinels {
		sentinel.Kill()
	}
	requireAnswers(t, s)
	s.topology.(*sentinels).watch() // it finds no sentinel
	requireAnswers(t, s)
	require.Equal(t, 0, n.count())

	g.Servers[0].Restart()
	awaitAnswers(t, s)
	g.Servers[0].Do("REPLICAOF", "127.0.0.1", g.Servers[1].Port())
	require.ErrorIs(t, runOne(s, &Call{Script: mark, Keys: []string{"k"}, Args: []string{"x"}}), ErrUnavailable)
	awaitFailedChecks(t, s)
	require.True(t, s.IsUnavailable(), "it is no master any more")
	require.Equal(t, "READONLY: this redis is a replica", strings.Replace(lastReason(n), errNotMasterText(), "READONLY: this redis is a replica", 1))
}

func errNotMasterText() string { return reasonOf(errNotMaster).Error() }

func lastReason(n *notes) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.reasons[len(n.reasons)-1].Error()
}

// awaitAnswers waits until the store answers a call.
func awaitAnswers(t *testing.T, s *Store) {
	t.Helper()
	require.Eventually(t, func() bool {
		_, err := add(s, "1", "1")
		return err == nil
	}, patience, 5*time.Millisecond)
}

func TestSentinel_saysWhatIsWrong(t *testing.T) {
	master := redistest.Start(t)
	replica := redistest.Start(t, "--replicaof", "127.0.0.1 "+master.Port())
	monitor := func(server *redistest.Server) string {
		return "sentinel monitor " + redistest.MasterName + " 127.0.0.1 " + server.Port() + " 1\n" +
			"sentinel down-after-milliseconds " + redistest.MasterName + " 60000\n"
	}
	const users = "user default off\nuser gateway on >right +auth +sentinel|get-master-addr-by-name\n"
	free := "127.0.0.1:" + redistest.FreePort(t)
	for _, row := range []struct {
		name, address, user, password string
		reason                        string // empty: it works
	}{
		{"a user of the sentinels", redistest.StartSentinel(t, monitor(master)+users).Addr(), "gateway", "right", ""},
		{"a wrong password", redistest.StartSentinel(t, monitor(master)+users).Addr(), "gateway", "wrong",
			"sentinel <address>: AUTH: WRONGPASS: unknown user or wrong password"},
		{"no password", redistest.StartSentinel(t, monitor(master)+users).Addr(), "", "", "sentinel <address>: NOAUTH: redis requires a password"},
		{"an unknown master", redistest.StartSentinel(t, "").Addr(), "", "", "the sentinels do not know a master of this name"},
		{"no sentinel", master.Addr(), "", "", "sentinel <address>: redis does not know SENTINEL: is this a Sentinel, or was the command renamed?"},
		{"nothing", free, "", "", "dial tcp " + free + ": connect: connection refused"},
		{"a master that is a replica", redistest.StartSentinel(t, monitor(replica)).Addr(), "", "", errNotMasterText()},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			s, n := newStore(t, Settings{Address: row.address, Sentinel: &SentinelSettings{
				Master: redistest.MasterName, Username: row.user, Password: row.password,
			}})
			if row.reason == "" {
				requireAnswers(t, s)
				return
			}
			requireUnavailable(t, s)
			n.await(t, 1)
			require.Equal(t, strings.Replace(row.reason, "<address>", row.address, 1), n.get(0).Error())
		})
	}
}

// Requests that come at the same time need connections at the same time. The sentinels are asked once for all of them.
func TestSentinel_manyFirstCallsAtOnce(t *testing.T) {
	master := redistest.Start(t)
	sentinel := redistest.StartSentinel(t, "sentinel monitor "+redistest.MasterName+" 127.0.0.1 "+master.Port()+" 1\n")
	for i := 0; i < 5; i++ {
		s, n := newStore(t, Settings{Address: sentinel.Addr(), Sentinel: &SentinelSettings{Master: redistest.MasterName}})
		answers := make(chan error, 20)
		for j := 0; j < 20; j++ {
			go func() {
				defer func() { recover() }()
				_, err := add(s, "1", "1")
				answers <- err
			}()
		}
		for j := 0; j < 20; j++ {
			err := <-answers
			require.NoError(t, err)
		}
		require.Equal(t, 0, n.count())
	}
}
