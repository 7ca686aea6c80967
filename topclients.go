package resilience

import "sort"

// topClients counts the refusals of the clients that were refused most in the last minutes, in bounded memory. It is the Space-Saving sketch:
// a client that is not among the counted ones takes the place of the least refused one, and its count, so that no count is too low, and
// none is too high by more than its error. Counts are kept for two periods, the present one and the one before. Whoever has it guards it.
type topClients struct {
	ends    int64 // of the present period, microseconds
	present map[string]*topClient
	before  map[string]*topClient
}

type topClient struct {
	key          string // it may be a secret: show identity.Shown of it, or its hash
	limit        string
	count, error int64
}

const (
	maxTopClients = 64
	topPeriod     = 5 * 60 * 1000000 // microseconds
)

func newTopClients() *topClients {
	return &topClients{present: map[string]*topClient{}, before: map[string]*topClient{}}
}

// add counts refusals of a client by a limit.
func (c *topClients) add(key, limit string, refusals, now int64) {
	c.turn(now)
	one := c.present[key]
	if one == nil {
		one = &topClient{key: key}
		if len(c.present) >= maxTopClients {
			least := c.least()
			delete(c.present, least.key)
			one.count = least.count
			one.error = least.count
		}
		c.present[key] = one
	}
	one.count += refusals
	one.limit = limit
}

func (c *topClients) least() *topClient {
	var least *topClient
	for _, one := range c.present {
		if least == nil || one.count < least.count {
			least = one
		}
	}
	return least
}

// turn begins a new period if the present one has ended.
func (c *topClients) turn(now int64) {
	if now < c.ends {
		return
	}
	c.before = c.present
	if now >= c.ends+topPeriod {
		c.before = map[string]*topClient{}
	}
	c.present = map[string]*topClient{}
	c.ends = now + topPeriod
}

// copies returns what is counted of the last period and the present one, for mostOf. It does little, as requests may wait for its lock.
func (c *topClients) copies(now int64) []topClient {
	c.turn(now)
	all := make([]topClient, 0, 2*maxTopClients)
	for _, one := range c.before {
		all = append(all, *one)
	}
	for _, one := range c.present {
		all = append(all, *one)
	}
	return all
}

// mostOf returns the clients that were refused most, at most n of them.
func mostOf(copies []topClient, n int) []*topClient {
	all := map[string]*topClient{}
	for _, one := range copies {
		sum := all[one.key]
		if sum == nil {
			sum = &topClient{key: one.key}
			all[one.key] = sum
		}
		sum.count += one.count
		sum.error += one.error
		sum.limit = one.limit
	}
	sorted := []*topClient{}
	for _, one := range all {
		sorted = append(sorted, one)
	}
	sort.Slice(sorted, func(i, j int) bool {
		if sorted[i].count != sorted[j].count {
			return sorted[i].count > sorted[j].count
		}
		return sorted[i].key < sorted[j].key
	})
	if len(sorted) > n {
		sorted = sorted[:n]
	}
	return sorted
}
