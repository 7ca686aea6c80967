package ratelimit

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// queueSteps is a limiter in this process whose clock only the test moves, and a route whose requests wait up to 100 s, four at once.
type queueSteps struct {
	t     *testing.T
	clock *clock
	cache *Cache
	turns map[string]*Turn
	plans map[string]*Plan
}

func newQueueSteps(t *testing.T) *queueSteps {
	q := &queueSteps{t: t, clock: &clock{micros: 1}, turns: map[string]*Turn{}, plans: map[string]*Plan{}}
	l := New(Settings{Now: q.clock.now})
	t.Cleanup(func() { Close(l) })
	q.cache = NewPlanCache(l, Draw{}, 0)
	SetDelay(q.cache, 100*time.Second, 4)
	return q
}

// tenSeconds is a bucket of five tokens, one of which is refilled in ten seconds.
func tenSeconds(key string, cost int64) Draw {
	return Draw{Key: key, Levels: NewLevels([]NamedLimit{{key, NewLimit(5, 1, 10*time.Second)}}), Cost: cost}
}

// asks lets a request ask, for the first time or again, and returns after how many seconds its tokens are due; 0: it has them, -n: it is refused
// for n seconds.
func (q *queueSteps) asks(name string, draws ...Draw) int64 {
	now := q.clock.now()
	if q.turns[name] == nil {
		q.turns[name] = NewTurn(now)
		q.plans[name] = &Plan{Draws: draws}
	}
	turn, plan := q.turns[name], q.plans[name]
	verdict, refusal := AcquireLocalInTurn(q.cache, plan, turn, now)
	if verdict > 0 {
		turn.Taken = true
		EndTurn(q.cache, plan, turn, now)
		return 0
	}
	if left := JoinQueue(q.cache, plan, turn, refusal, -verdict, now); left > 0 {
		return -left / second
	}
	return q.due(name)
}

// due returns in how many seconds a request that waits is woken.
func (q *queueSteps) due(name string) int64 { return (q.turns[name].due - q.clock.now()) / second }

func (q *queueSteps) ends(name string) {
	EndTurn(q.cache, q.plans[name], q.turns[name], q.clock.now())
}

func TestDelay_queueSteps(t *testing.T) {
	q := newQueueSteps(t)
	x := func(cost int64) Draw { return tenSeconds("x", cost) }
	require.Equal(t, int64(0), q.asks("first", x(5)))
	require.Equal(t, int64(10), q.asks("a", x(1)))
	require.Equal(t, int64(60), q.asks("b", x(5)), "behind the token of a")
	require.Equal(t, int64(70), q.asks("c", x(1)))
	require.Equal(t, int64(-120), q.asks("too late", x(5)))
	require.Equal(t, int64(0), q.asks("another bucket", tenSeconds("y", 1)))
	require.Equal(t, int64(80), q.asks("d", x(1)))
	require.Equal(t, int64(-90), q.asks("too many", x(1)), "four wait")
	q.ends("b")
	require.Equal(t, []int64{10, 20, 30}, []int64{q.due("a"), q.due("c"), q.due("d")}, "those behind b move up")
	q.clock.advance(10 * second)
	require.Equal(t, int64(30), q.asks("e", x(1)), "the token is for a")
	require.Equal(t, int64(10), q.asks("c"), "a, which is before it, has not asked yet")
	require.Equal(t, int64(0), q.asks("a"))
	require.Equal(t, int64(10), q.due("c"))
}

func TestDelay_movesToTheQueueOfTheBucketThatRefuses(t *testing.T) {
	q := newQueueSteps(t)
	x, y := tenSeconds("x", 5), tenSeconds("y", 5)
	require.Equal(t, int64(0), q.asks("first", x))
	require.Equal(t, int64(50), q.asks("a", x, y))
	require.Equal(t, int64(0), q.asks("second", y), "a waits for x only")
	q.clock.advance(50 * second)
	require.Equal(t, int64(0), q.asks("third", tenSeconds("y", 4)))
	require.Equal(t, int64(40), q.asks("a"), "now for y")
	require.Len(t, q.cache.limiter.delays.queues, 1)
	q.ends("a")
	require.Len(t, q.cache.limiter.delays.queues, 0)
	require.Equal(t, int64(0), Delayed(q.cache.limiter))
}

func TestDelay_aPenalisedClientDoesNotWait(t *testing.T) {
	q := newQueueSteps(t)
	require.Equal(t, int64(0), q.asks("first", tenSeconds("x", 5)))
	require.Equal(t, int64(10), q.asks("a", tenSeconds("x", 1)))
	plan := &Plan{Draws: []Draw{tenSeconds("x", 5)}, Penalty: NewPenalty(1, time.Minute, time.Hour), Client: "penalty:x"}
	now := q.clock.now()
	turn := NewTurn(now)
	verdict, refusal := AcquireLocalInTurn(q.cache, plan, turn, now)
	SetDelay(q.cache, time.Second, 4)
	require.Equal(t, int64(60*second), JoinQueue(q.cache, plan, turn, refusal, -verdict, now), "it is refused, which counts")
	verdict, refusal = AcquireLocalInTurn(q.cache, plan, turn, now)
	require.Equal(t, Refusal{Limit: PenaltyName}, refusal)
	require.Equal(t, -60*second, verdict)
}

// A client may leave before, while or after its request is woken.
func TestDelay_awaitEndsOnce(t *testing.T) {
	q := newQueueSteps(t)
	require.Equal(t, int64(0), q.asks("first", tenSeconds("x", 5)))
	for i := 0; i < 3; i++ {
		require.Equal(t, int64(10), q.asks("a", tenSeconds("x", 1)))
		ctx, cancel := context.WithCancel(context.Background())
		if i > 0 {
			q.cache.lock.Lock()
			wakeLocked(q.turns["a"])
			q.cache.lock.Unlock()
		}
		if i != 1 {
			cancel()
		}
		AwaitTurn(ctx, q.cache, q.turns["a"])
		cancel()
		if i < 2 {
			require.Equal(t, i == 0, q.turns["a"].Left)
		}
		q.ends("a")
		delete(q.turns, "a")
	}
}
