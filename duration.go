package resilience

import (
	"fmt"
	"math"
	"strings"
	"time"
)

const day = 24 * time.Hour

// duration reads a time of at least lowest, in whole microseconds. If it is wrong, only the same time in another form is suggested: any
// other would be a guess.
func (r *problems) duration(path, text string, lowest, byDefault time.Duration) time.Duration {
	text = strings.TrimSpace(text)
	if text == "" {
		return byDefault
	}
	d, ok := parseDuration(text)
	switch {
	case ok && isUsable(d, lowest):
		return d
	case ok:
		r.add(fmt.Sprintf("%s: %q is out of bounds; write a duration from %s to %s, in whole microseconds",
			path, text, durationText(lowest), durationText(maxDuration)))
	default:
		r.add(fmt.Sprintf("%s: %q is not a duration%s", path, text, durationAdvice(text, lowest, byDefault)))
	}
	return byDefault
}

// durationOrNever is duration for a time that 0 disables.
func (r *problems) durationOrNever(path, text string, lowest, byDefault time.Duration) time.Duration {
	if d, ok := parseDuration(strings.TrimSpace(text)); ok && d == 0 {
		return 0
	}
	return r.duration(path, text, lowest, byDefault)
}

// durationAdvice says how to write a text that is no duration.
func durationAdvice(text string, lowest, byDefault time.Duration) string {
	if together := strings.Join(strings.Fields(text), ""); together != text {
		if d, ok := parseDuration(together); ok && isUsable(d, lowest) {
			return fmt.Sprintf("; write %q", together)
		}
	}
	number, unit, units := text, "s", "seconds"
	if strings.Contains(text, ".") {
		number = strings.TrimRight(strings.TrimRight(text, "0"), ".") // files deliver 30 as "30.000000"
	}
	if byDefault > 0 && byDefault < time.Second {
		unit, units = "ms", "milliseconds"
	}
	if d, ok := parseDuration(number + unit); ok && isUsable(d, lowest) && strings.Trim(number, "0123456789.") == "" {
		return fmt.Sprintf(", as it has no unit; if it is %s, write %q", units, number+unit)
	}
	return "; write a number and a unit: us, ms, s, m, h, d or w"
}

// parseDuration is time.ParseDuration with days and weeks.
func parseDuration(text string) (time.Duration, bool) {
	sign := time.Duration(1)
	rest := text
	if strings.HasPrefix(rest, "-") {
		sign = -1
	}
	rest = strings.TrimLeft(rest, "+-")
	if len(text)-len(rest) > 1 || rest == "" {
		return 0, false
	}
	sum := time.Duration(0)
	for rest != "" {
		number := len(rest) - len(strings.TrimLeft(rest, "0123456789."))
		part := len(rest)
		if next := strings.IndexAny(rest[number:], "0123456789."); next >= 0 {
			part = number + next
		}
		if number == part && strings.Trim(text, "+-0") != "" {
			return 0, false // only 0 needs no unit
		}
		d, ok := parsePart(rest[:number], rest[number:part])
		if !ok || sum+d < sum {
			return 0, false
		}
		sum += d
		rest = rest[part:]
	}
	return sign * sum, true
}

// parsePart reads one number with its unit.
func parsePart(number, unit string) (time.Duration, bool) {
	hours := time.Duration(1)
	switch unit {
	case "d":
		hours, unit = 24, "h"
	case "w":
		hours, unit = 7*24, "h"
	}
	d, err := time.ParseDuration(number + unit)
	if err != nil || d > math.MaxInt64/hours {
		return 0, false
	}
	return d * hours, true
}

func isUsable(d, lowest time.Duration) bool {
	return d >= lowest && d <= maxDuration && d%time.Microsecond == 0
}

// durationText returns a bound as an operator would write it.
func durationText(d time.Duration) string {
	if d >= day && d%day == 0 {
		return fmt.Sprintf("%dd", int64(d/day))
	}
	return strings.Replace(d.String(), "µ", "u", 1)
}
