package simulate

import (
	"math"
	"math/rand"
	"sort"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resilient-gateway/resilience/ratelimit"
	"github.com/stretchr/testify/require"
)

// crowd is many clients, all far below their limit: together they send 5,500 requests a second, at random times.
type crowd struct {
	clients int
	skew    float64 // of a Zipf distribution; 0: uniform
}

// TestCrowd bounds how many of a crowd's requests reach Redis, in the three seconds after the first and at the end, and how many have to
// wait for it then.
func TestCrowd(t *testing.T) {
	zipf, uniform := crowd{10000, 1.1}, crowd{200000, 0}
	rows := []struct {
		name        string
		crowd       crowd
		limit       *ratelimit.Limit
		gateways    int
		seconds     int
		soon, later float64 // the largest shares that may reach Redis
		waits       float64 // and the largest that may wait for it
	}{
		{"Zipf", zipf, ratelimit.NewLimit(10000, 10000, time.Second), 1, 160, 0.22, 0.03, 0.008},
		{"Zipf", zipf, ratelimit.NewLimit(10000, 10000, time.Second), 2, 160, 0.28, 0.052, 0.018},
		{"Zipf, 100 a second", zipf, ratelimit.NewLimit(1000, 100, time.Second), 1, 160, 0.32, 0.25, 0.15},
		{"uniform", uniform, ratelimit.NewLimit(10000, 1, time.Minute), 1, 160, 1, 1, 0.05},
	}
	for _, row := range rows {
		t.Run(row.name+", "+strconv.Itoa(row.gateways)+" gateways", func(t *testing.T) {
			var soon, later, waits float64
			synctest.Test(t, func(*testing.T) {
				soon, later, waits = row.crowd.ask(row.gateways, row.limit, row.seconds)
			})
			t.Logf("%.3f of the requests reach Redis at first, %.3f later; %.4f wait", soon, later, waits)
			require.LessOrEqual(t, soon, row.soon)
			require.LessOrEqual(t, later, row.later)
			require.LessOrEqual(t, waits, row.waits)
		})
	}
}

// ask lets the crowd ask a fleet, and returns the share of its requests that reached Redis, from the first second to the fourth and in the
// last quarter of the time, and the share of those that waited then.
func (c crowd) ask(gateways int, limit *ratelimit.Limit, seconds int) (soon, later, waits float64) {
	f := newFleet(gateways, limit, 1)
	defer f.stop()
	random := rand.New(rand.NewSource(2))
	sums := make([]float64, c.clients)
	sum := 0.0
	for i := range sums {
		sum += math.Pow(float64(i+1), -c.skew)
		sums[i] = sum
	}
	begun := time.Now()
	asked, reached, waited := map[int]int{}, map[int]int{}, map[int]int{} // until a second
	for n := 0; ; n++ {
		second := int(time.Since(begun) / time.Second)
		if _, counted := asked[second]; !counted {
			f.asking.Wait()
			asked[second], reached[second], waited[second] = n, f.redis.keys, int(f.waited.Load())
		}
		if second == seconds {
			break
		}
		client := sort.SearchFloat64s(sums, random.Float64()*sum)
		f.ask(f.gateways[random.Intn(gateways)], strconv.Itoa(client))
		time.Sleep(time.Duration(random.ExpFloat64() * float64(time.Second) / 5500))
	}
	share := func(of map[int]int, from, to int) float64 {
		return float64(of[to]-of[from]) / float64(asked[to]-asked[from])
	}
	return share(reached, 1, 4), share(reached, seconds*3/4, seconds), share(waited, seconds*3/4, seconds)
}
