package ratelimit

import (
	"sort"
	"strings"
	"sync"

	"github.com/resilient-gateway/resilience/internal/store"
)

// OwnLimit is the name of a rateLimit block's own limit among its limits.
const OwnLimit = "default"

// NamedLimit is a limit and its name, which says which level of a bucket value is counted under it.
type NamedLimit struct {
	Name  string
	Limit *Limit
}

// Levels are the limits of one bucket value that one draw pays: a token of the draw is a token of each. They are immutable and may be
// shared: the same limits give the same *Levels, so that a reload that changes nothing changes no lease.
type Levels struct {
	names  []string
	limits []*Limit
	words  []string // as a call of the script names them
	terms  *Limit   // the limit whose leases are the smallest; it decides their terms

	standing bool // the block's own limit is among them and has standing leases
}

var (
	levelsMu sync.Mutex
	levels   = map[string]*Levels{} // guarded by levelsMu
)

// NewLevels returns the levels of at least one limit. No two have the same name.
func NewLevels(named []NamedLimit) *Levels {
	named = append([]NamedLimit{}, named...)
	sort.Slice(named, func(i, j int) bool { return named[i].Name < named[j].Name })
	made := &Levels{}
	for _, one := range named {
		made.names = append(made.names, one.Name)
		made.limits = append(made.limits, one.Limit)
		made.words = append(made.words, limitWord(one.Name, one.Limit))
		made.standing = made.standing || one.Name == OwnLimit && one.Limit.standing > 0
		if made.terms == nil || one.Limit.longLeaseMax < made.terms.longLeaseMax {
			made.terms = one.Limit
		}
	}
	text := strings.Join(made.words, " ")
	levelsMu.Lock()
	defer levelsMu.Unlock()
	if levels[text] == nil {
		levels[text] = made
	}
	return levels[text]
}

// Capacity returns the capacity of the smallest limit.
func (v *Levels) Capacity() int64 {
	smallest := v.limits[0].full / v.limits[0].period
	for _, limit := range v.limits[1:] {
		if capacity := limit.full / limit.period; capacity < smallest {
			smallest = capacity
		}
	}
	return smallest
}

// limitsWord returns the limits of a call as its second argument.
func limitsWord(words []string) string { return store.Word(strings.Join(words, " ")) }
