package resilience

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"sort"
	"strconv"
	"strings"
	"time"
)

// reader reads the values of a configuration and collects what is wrong with them.
type reader struct {
	problems []string
}

// err returns all problems as one error, or nil.
func (r *reader) err() error {
	if len(r.problems) == 0 {
		return nil
	}
	return errors.New(strings.Join(r.problems, "; "))
}

func (r *reader) add(problem string) {
	r.problems = append(r.problems, problem)
}

// wrong tells of a value that is not what it should be, and of one that would be right.
func (r *reader) wrong(path, value, want, example string) {
	r.add(fmt.Sprintf("%s: %q is not %s; write %q", path, value, want, example))
}

// count reads a whole number.
func (r *reader) count(path, text string, lowest, highest, byDefault int64) int64 {
	text = strings.TrimSpace(text)
	if text == "" {
		return byDefault
	}
	// Files deliver 5.0 as "5.000000", which is as whole as 5.
	whole := text
	if dot := strings.Index(whole, "."); dot > 0 && strings.Trim(whole[dot+1:], "0") == "" {
		whole = whole[:dot]
	}
	number, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || number < lowest || number > highest {
		example := byDefault
		if example < lowest {
			example = lowest
		}
		r.wrong(path, text, fmt.Sprintf("a whole number from %d to %d", lowest, highest), strconv.FormatInt(example, 10))
		return byDefault
	}
	return number
}

// duration reads a time of at least a microsecond.
func (r *reader) duration(path, text string, byDefault time.Duration) time.Duration {
	text = strings.TrimSpace(text)
	if text == "" {
		return byDefault
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		example := byDefault.String()
		if _, err := strconv.ParseFloat(text, 64); err == nil && !strings.HasPrefix(text, "-") {
			example = text + "s" // the unit is all that is missing
			if dot := strings.Index(text, "."); dot > 0 {
				example = strings.TrimRight(strings.TrimRight(text, "0"), ".") + "s"
			}
		}
		r.wrong(path, text, "a duration", example)
		return byDefault
	}
	if d < time.Microsecond || d > maxDuration || d%time.Microsecond != 0 {
		r.wrong(path, text, "a duration of whole microseconds, from 1µs to "+maxDuration.String(), byDefault.String())
		return byDefault
	}
	return d
}

// flag reads true or false. YAML's other words for them arrive as 1 and 0.
func (r *reader) flag(path, text string) bool {
	switch strings.TrimSpace(text) {
	case "true", "1":
		return true
	case "", "false", "0":
		return false
	}
	r.wrong(path, text, "true or false", "true")
	return false
}

// address checks a host and port.
func (r *reader) address(path, text string) {
	host, port, err := net.SplitHostPort(text)
	number, portErr := strconv.Atoi(port)
	if err != nil || host == "" || portErr != nil || number < 1 || number > 65535 {
		if at := strings.LastIndex(text, "@"); at >= 0 {
			text = "…" + text[at:] // what is before it may be a password
		}
		r.wrong(path, text, "a host and a port", "redis:6379")
	}
}

// unknown tells of keys that there are not, and of the valid ones that they look like.
func (r *reader) unknown(path string, found map[string]interface{}, valid ...string) {
	var keys []string
	for key := range found {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	for _, key := range keys {
		r.add(fmt.Sprintf("%s%s: there is no such key; did you mean %q?", path, key, nearest(key, valid)))
	}
}

// nearest returns the valid word that takes the fewest changes of a letter to write.
func nearest(word string, valid []string) string {
	best, bestDistance := "", -1
	for _, candidate := range valid {
		d := distance(strings.ToLower(word), strings.ToLower(candidate))
		if bestDistance < 0 || d < bestDistance {
			best, bestDistance = candidate, d
		}
	}
	return best
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost++
			}
			diagonal = row[j]
			if row[j]+1 < cost {
				cost = row[j] + 1
			}
			if row[j-1]+1 < cost {
				cost = row[j-1] + 1
			}
			row[j] = cost
		}
	}
	return row[len(b)]
}

// isName tells whether the text may be part of a key in Redis as it is.
func isName(text string) bool {
	if text == "" || len(text) > 64 {
		return false
	}
	for i := 0; i < len(text); i++ {
		if !isLetterOrDigit(text[i]) && strings.IndexByte("._@-", text[i]) < 0 {
			return false
		}
	}
	return true
}

func isHeaderName(text string) bool {
	for i := 0; i < len(text); i++ {
		if !isLetterOrDigit(text[i]) && strings.IndexByte("!#$%&'*+-.^_`|~", text[i]) < 0 {
			return false
		}
	}
	return text != ""
}

func isLetterOrDigit(b byte) bool {
	return b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9'
}

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}
