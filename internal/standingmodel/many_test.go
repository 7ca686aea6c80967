package standingmodel

import (
	"fmt"
	"testing"
)

// TestMany runs fleets and tables of the size that gateways have: a thousand gateways, and as many keys as a gateway knows.
func TestMany(t *testing.T) {
	for _, row := range []struct{ capacity, most, gateways, buckets, steps int }{
		{100000, 1000, 1000, 2, 1000},
		{100000, 1000, 1100, 2, 1000},
		{20000, 200, 1000, 2, 2000},
		{1000, 10, 8, 65536, 300},
		{100, 1, 2, 65536, 300},
	} {
		t.Run(fmt.Sprintf("capacity %d, %d gateways, %d buckets", row.capacity, row.gateways, row.buckets), func(t *testing.T) {
			w := newWorld(random(row.gateways), Omit{})
			l := limit{capacity: row.capacity, most: row.most, token: 8}
			l.lasts = 2*l.pay() + l.pay()/8 + 100
			w.limits = [2]limit{l, l}
			w.longest = l.lasts
			w.total = 0
			for i := range w.weights {
				w.weights[i] = usual[i]
				w.total += usual[i]
			}
			w.populate(row.gateways, row.buckets)
			w.settleDown()
			r := random(1)
			for i := 0; i < row.steps; i++ {
				w.random = random(r.Intn(1 << 30))
				w.act()
			}
			for bucket := 0; bucket < row.buckets; bucket++ {
				w.burst(w.gateways[bucket%row.gateways], bucket)
			}
			result := w.judge()
			t.Logf("%d requests passed, %d by standing tokens, %d windows", result.Admissions, result.Standing, result.Windows)
			if result.Excess > 0 {
				t.Errorf("a window has %d tokens more than allowed", result.Excess)
			}
			if result.Standing < 400 {
				t.Error("hardly any request passed by a standing token")
			}
		})
	}
}
