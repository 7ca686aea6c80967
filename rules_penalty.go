package resilience

import (
	"fmt"
	"time"

	"github.com/resilient-gateway/resilience/ratelimit"
)

// readPenalty reads the penalty of clients that are refused again and again.
func readPenalty(r *problems, s *settings, c *PenaltyConfig) *ratelimit.Penalty {
	const path = "rateLimit.penalty"
	r.unknown(path+".", c.Unknown, "refusals", "time", "maxTime")
	refusals := r.count(path+".refusals", c.Refusals, 1, maxCount, 20)
	first := r.duration(path+".time", c.Time, time.Second, time.Minute)
	longest := time.Hour
	if longest < first {
		longest = first
	}
	longest = r.duration(path+".maxTime", c.MaxTime, time.Second, longest)
	if longest < first {
		r.add(fmt.Sprintf("%s.maxTime: %s is less than time, %s, which the first penalty lasts; write at least that", path, longest, first))
	}
	if s.keySource.All {
		r.add(path + ": all requests are one client by sourceCriterion.all, and so would be refused together; write another sourceCriterion")
	}
	s.parts = append(s.parts, fmt.Sprintf("penalty: %d refusals within %s, for %s up to %s", refusals, first, first, longest))
	return ratelimit.NewPenalty(refusals, first, longest)
}
