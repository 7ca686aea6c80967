package ratelimit

// CountLeases returns the number of buckets whose leases this gateway remembers, also those that are used up. It visits none of them.
func CountLeases(l *Limiter) int64 {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	n := len(l.recent) + len(l.previous)
	for _, table := range l.bucketTables {
		n += len(table.recent) + len(table.previous)
	}
	return int64(n)
}
