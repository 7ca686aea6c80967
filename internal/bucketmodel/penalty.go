package bucketmodel

import (
	"fmt"
	"strconv"
	"strings"
)

// penalty is the value of a client's penalty, gone when its key would have expired.
type penalty struct{ ends, length, refusals, begun, due int64 }

// latest is the value of the key with the latest penalties.
type latest struct {
	number, due int64
	entries     []entry // the latest first
}

type entry struct {
	number, ends, length int64
	key                  string
}

// maxEntries is how many penalties the key with the latest holds.
const maxEntries = 64

// penaltyOf returns what is known of a client at a time; nil if the key holds something else.
func (m *Model) penaltyOf(key string, now int64) *penalty {
	if m.foreign[key] {
		return nil
	}
	kept, found := m.penalties[key]
	if !found || kept.due <= now {
		delete(m.penalties, key)
		return &penalty{}
	}
	kept.ends = min(kept.ends, now+kept.length)
	kept.begun = min(kept.begun, now)
	return &kept
}

// PenaltyLeft returns the microseconds that are left of the penalty of a client at a time.
func (m *Model) PenaltyLeft(key string, now int64) int64 {
	if p := m.penaltyOf(key, now); p != nil {
		return max(0, p.ends-now)
	}
	return 0
}

// Penalize does what the script penalize does with these keys and arguments at a time of Redis's clock, and returns its answer.
func (m *Model) Penalize(now int64, keys, args []string) string {
	feed := m.latest[keys[0]]
	if feed.due <= now {
		delete(m.latest, keys[0])
		feed = latest{}
	}
	feed.entries = append([]entry{}, feed.entries...)
	before := feed.number
	var lefts []string
	for i, key := range keys[1:] {
		words := numbers(args[1+i])
		p := m.penaltyOf(key, now)
		if p == nil {
			lefts = append(lefts, "-1")
			continue
		}
		added, refusals, time, most := words[0], words[1], words[2], words[3]
		if added > 0 && p.ends <= now {
			if p.count(now, added, refusals, time, most) {
				feed.number = max(feed.number+1, now)
				feed.entries = append([]entry{{feed.number, p.ends, p.length, key}}, feed.entries...)
			}
			until := int64(0)
			if p.length > 0 {
				until = p.ends + 2*p.length
			}
			if p.refusals > 0 {
				until = max(until, p.begun+time)
			}
			p.due = now + ((until-now+999)/1000+1)*1000
			m.penalties[key] = *p
		}
		lefts = append(lefts, strconv.FormatInt(max(0, p.ends-now), 10))
	}
	return m.answerLatest(keys[0], feed, before, number(args[0]), now, lefts)
}

// count counts refusals, and reports whether a penalty begins.
func (p *penalty) count(now, added, refusals, time, most int64) bool {
	if now >= p.ends+2*p.length {
		p.length = 0
	}
	if p.refusals == 0 || now-p.begun >= time {
		p.refusals, p.begun = 0, now
	}
	p.refusals += added
	if p.refusals < refusals {
		return false
	}
	if p.length > 0 {
		p.length = min(most, 2*p.length)
	} else {
		p.length = min(most, time)
	}
	p.ends, p.refusals = now+p.length, 0
	return true
}

// answerLatest keeps the latest penalties if there are new ones, and returns the answer to a caller that knows of some.
func (m *Model) answerLatest(key string, feed latest, before, known, now int64, lefts []string) string {
	if len(feed.entries) > maxEntries {
		feed.entries = feed.entries[:maxEntries]
	}
	if known > feed.number {
		known = 0
	}
	answer := append([]string{strconv.FormatInt(feed.number, 10)}, lefts...)
	longest := int64(0)
	for _, one := range feed.entries {
		left := min(one.ends-now, one.length)
		longest = max(longest, left)
		if one.number > known && left > 0 {
			answer = append(answer, fmt.Sprintf("%d:%s", left, one.key))
		}
	}
	if feed.number > before && !m.foreign[key] {
		feed.due = now + ((longest+999)/1000+1)*1000
		m.latest[key] = feed
	}
	return strings.Join(answer, " ")
}
