package resilience

import (
	"fmt"
	"strings"
	"time"
)

const maxDelayed = 10000 // requests that wait at once

// readDelay reads how long, and how many, requests may wait for their tokens.
func readDelay(r *problems, s *settings, c *RateLimitConfig) {
	s.maxDelay = r.durationOrNever("rateLimit.maxDelay", c.MaxDelay, time.Millisecond, 0)
	s.maxDelayed = r.count("rateLimit.maxDelayed", c.MaxDelayed, 1, maxDelayed, 100)
	if s.maxDelay == 0 {
		if strings.TrimSpace(c.MaxDelayed) != "" {
			r.add("rateLimit.maxDelayed: no request waits without maxDelay; write maxDelay too, or leave this out")
		}
		return
	}
	if s.dryRun {
		r.add("rateLimit.maxDelay: a dry run lets requests pass at once; leave out maxDelay or dryRun")
	}
	s.parts = append(s.parts, fmt.Sprintf("delay: up to %s, %d requests at once", s.maxDelay, s.maxDelayed))
}
