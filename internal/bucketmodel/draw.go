package bucketmodel

import (
	"strconv"
	"strings"
)

// drawn is one draw of a request.
type drawn struct {
	bucket         *bucket
	levels         []*level
	cost           int64
	owed, refund   int64
	ahead          bool
	short, long    int64
	number, unused int64
}

// named is a limit of a call.
type named struct {
	name string
	limit
}

// Foreign makes a key hold something that is not a bucket.
func (m *Model) Foreign(key string) { m.foreign[key] = true }

// Draw does what the script draw does with these keys and arguments at a time of Redis's clock, and returns its answer.
func (m *Model) Draw(now int64, keys, args []string) string {
	words := numbers(args[0])
	t := terms{short: words[0], long: words[1], minimum: words[2], share: words[3], most: words[4], part: words[5]}
	var limits []named
	r := counts{}
	for _, word := range strings.Fields(args[1]) {
		parts := strings.Split(word, ":")
		l := limit{capacity: number(parts[1]), refill: number(parts[2]), period: number(parts[3])}
		if len(parts) > 4 && parts[0] == "default" {
			l.standing = number(parts[4])
		}
		if l.standing > 0 {
			r = m.counts(keys[len(keys)-1], now)
		}
		limits = append(limits, named{parts[0], l})
	}
	c := &drawCall{m: m, now: now, keys: keys, t: t, plenty: words[6], limits: limits, counts: r, open: map[int64]*bucket{}}
	var answers []string
	for _, text := range args[2:] {
		answers = append(answers, c.ask(text))
	}
	for i, b := range c.open {
		m.save(keys[i-1], b, now)
	}
	return strings.Join(answers, " ")
}

// drawCall is the state of one call. open holds the values it has read, by the indexes of their keys.
type drawCall struct {
	m      *Model
	now    int64
	keys   []string
	t      terms
	plenty int64
	limits []named
	counts counts
	open   map[int64]*bucket
}

func (c *drawCall) ask(text string) string {
	words := strings.Fields(text)
	want, penaltyKey, checked := strings.Cut(words[0], "p")
	left := int64(0)
	if checked {
		p := c.m.penaltyOf(c.keys[number(penaltyKey)-1], c.now)
		if p == nil {
			return "-1"
		}
		left = max(0, p.ends-c.now)
	}
	var draws []*drawn
	for _, word := range words[1:] {
		d := c.draw(word)
		if d == nil {
			return "-1"
		}
		draws = append(draws, d)
	}
	enough := want == "1" && left == 0
	for _, d := range draws {
		c.prepare(d)
	}
	for _, d := range draws {
		for _, l := range d.levels {
			enough = enough && floorDiv(l.level, l.period) >= d.cost
		}
	}
	if enough {
		for _, d := range draws {
			for _, l := range d.levels {
				l.level -= d.cost * l.period
				d.bucket.changed = d.bucket.changed || d.cost > 0
			}
		}
	}
	answer, isFull := "0", enough == (want == "1")
	if enough {
		answer = "1"
	}
	if left > 0 {
		answer, isFull = "!"+strconv.FormatInt(left, 10), false
	}
	for _, d := range draws {
		if left > 0 {
			d.ahead = false
		}
		word, full := c.report(d)
		answer += "," + word
		isFull = isFull && full
	}
	if isFull {
		return "+"
	}
	return answer
}

// draw reads a draw and the value it names; nil if that is no bucket or has too many levels.
func (c *drawCall) draw(word string) *drawn {
	parts := strings.Split(word, "/")
	key := number(parts[0])
	if c.m.foreign[c.keys[key-1]] {
		return nil
	}
	var limits []named
	for _, i := range strings.Split(parts[1], "+") {
		limits = append(limits, c.limits[number(i)-1])
	}
	b := c.open[key]
	if b == nil {
		b = c.m.load(c.keys[key-1], c.now, c.counts)
		c.open[key] = b
		for _, l := range limits {
			b.use(l.name, l.limit, c.now)
		}
		for _, l := range c.limits {
			if l.name == "default" && b.own != nil && b.own.capacity == 0 {
				b.use(l.name, l.limit, c.now)
			}
		}
		b.settle(c.now, c.t)
	}
	d := &drawn{bucket: b, cost: number(parts[2]), owed: number(parts[3]), refund: number(parts[4]), ahead: len(parts) > 5}
	for _, l := range limits {
		level := b.use(l.name, l.limit, c.now)
		if level == nil {
			return nil
		}
		d.levels = append(d.levels, level)
	}
	if len(parts) > 6 {
		d.short, d.long = number(parts[5]), number(parts[6])
	}
	if len(parts) > 8 {
		d.number, d.unused = number(parts[7]), number(parts[8])
	}
	return d
}

func (c *drawCall) prepare(d *drawn) {
	if d.number != 0 {
		d.bucket.end(d.number, d.unused)
	}
	for _, l := range d.levels {
		if d.refund > 0 {
			d.bucket.add(l, d.refund)
			d.bucket.changed = true
		}
		paid := max(0, min(d.owed, floorDiv(l.level, l.period)))
		l.level -= paid * l.period
		d.bucket.changed = d.bucket.changed || paid > 0
	}
}

func (c *drawCall) report(d *drawn) (word string, isFull bool) {
	tokens, deadline, length := int64(0), int64(0), int64(0)
	if d.ahead {
		tokens, deadline, length = d.bucket.lease(c.now, d.levels, c.t, d.short, d.long)
	}
	isFull = tokens == 0
	var levels []string
	for _, l := range d.levels {
		levels = append(levels, strconv.FormatInt(l.level, 10))
		isFull = isFull && floorDiv(l.level, l.period) >= c.t.minimum && float64(l.level) >= float64(l.capacity*l.period)/8*float64(c.plenty)
	}
	word = strings.Join(levels, "+") + ":" + strconv.FormatInt(tokens, 10)
	if tokens > 0 {
		word += ":" + strconv.FormatInt(deadline, 10) + ":" + strconv.FormatInt(length, 10)
	}
	return word, isFull
}
