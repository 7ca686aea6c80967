package store

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// importing is a slot that is being moved, and a store whose calls about a moved key are redirected to the node to which it is.
type importing struct {
	store    *Store
	from, to *redistest.Server
	slot     int64
}

func startImporting(t *testing.T) *importing {
	c := redistest.StartCluster(t, 2, false, 2*time.Second)
	i := &importing{from: c.Owner("test:{a}:1", c.Nodes[0]), to: other(c, "test:{a}:1")}
	i.store, _ = newStore(t, Settings{Address: i.from.Addr(), Cluster: true, HashTag: "{a}", Timeout: patience})
	i.slot = i.from.Int("CLUSTER", "KEYSLOT", "{a}")
	i.begin()
	return i
}

func (i *importing) begin() {
	i.to.Do("CLUSTER", "SETSLOT", i.slot, "IMPORTING", i.from.Text("CLUSTER", "MYID"))
	i.from.Do("CLUSTER", "SETSLOT", i.slot, "MIGRATING", i.to.Text("CLUSTER", "MYID"))
}

func (i *importing) giveUp() {
	i.to.Do("CLUSTER", "SETSLOT", i.slot, "STABLE")
	i.from.Do("CLUSTER", "SETSLOT", i.slot, "STABLE")
}

func (i *importing) count(t *testing.T, want int64) {
	t.Helper()
	value, err := countOnce(i.store, "test:{a}:moved")
	require.NoError(t, err)
	require.Equal(t, want, value)
}

// A move that is given up while the importing node is unavailable: the node is left alone, until it is named again.
func TestImporter_isForgotten(t *testing.T) {
	i := startImporting(t)
	i.count(t, 1)
	importer := i.store.importer
	i.giveUp()
	importer.markUnavailable(errNotRedis)
	awaitFailedChecks(t, importer)
	require.False(t, importer.isClosed(), "its last call was a moment ago")
	importer.askedAt.Store(time.Now().Add(-2 * importerIdle).UnixNano())
	require.Eventually(t, importer.isClosed, patience, time.Millisecond)
	require.LessOrEqual(t, strings.Count(i.to.Text("CLIENT", "LIST", "TYPE", "normal"), "\n"), 1, "no connection is left but that which asks")

	i.begin()
	i.count(t, 2)
	require.True(t, importer != i.store.importer)
}

// A node that does not import the slot any more says so to each check. That is no reason to connect to it again and again.
func TestImporter_aCheckConnectsOnce(t *testing.T) {
	i := startImporting(t)
	i.count(t, 1)
	i.giveUp()
	before := connections(t, i.to)
	own := connections(t, i.to) - before // of asking
	require.False(t, i.store.importer.check())
	require.Equal(t, before+2*own+1, connections(t, i.to))
}

// connections returns how many connections a server has ever taken.
func connections(t *testing.T, server *redistest.Server) int {
	t.Helper()
	text := server.Text("INFO", "stats")
	const name = "total_connections_received:"
	at := strings.Index(text, name)
	require.GreaterOrEqual(t, at, 0)
	n, err := strconv.Atoi(strings.Fields(text[at+len(name):])[0])
	require.NoError(t, err)
	return n
}

// Requests that come at the same time, each of which is redirected.
func TestImporter_isAskedByManyAtOnce(t *testing.T) {
	i := startImporting(t)
	failures := make(chan error, 8)
	for j := 0; j < cap(failures); j++ {
		go func() {
			defer func() { recover() }()
			var err error
			for k := 0; k < 20 && err == nil; k++ {
				_, err = countOnce(i.store, "test:{a}:moved")
			}
			failures <- err
		}()
	}
	for j := 0; j < cap(failures); j++ {
		err := <-failures
		require.NoError(t, err)
	}
	i.count(t, 161)
}

// One that is available costs something when its connections are to be renewed.
func TestImporter_isForgottenWhenARenewalIsDue(t *testing.T) {
	i := startImporting(t)
	i.count(t, 1)
	importer := i.store.importer
	importer.renew(importer.idle[0])
	require.False(t, importer.isClosed())
	importer.askedAt.Store(time.Now().Add(-2 * importerIdle).UnixNano())
	importer.renew(importer.idle[0])
	require.True(t, importer.isClosed())
	i.count(t, 2)
}

// The importer of a closed store closes each connection after its call.
func TestImporter_ofAClosedStore(t *testing.T) {
	i := startImporting(t)
	i.count(t, 1)
	i.store.Close()
	i.count(t, 2)
	importer := i.store.importer
	i.count(t, 3)
	require.True(t, importer == i.store.importer)
	require.True(t, importer.isClosed())
	require.Equal(t, 0, idleCount(importer))
}
