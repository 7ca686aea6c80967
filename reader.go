package resilience

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
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
	if len(r.problems) == 1 {
		return errors.New(r.problems[0])
	}
	text := fmt.Sprintf("%d problems:", len(r.problems))
	for i, problem := range r.problems {
		text += fmt.Sprintf(" (%d) %s", i+1, problem)
	}
	return errors.New(text)
}

func (r *reader) add(problem string) {
	r.problems = append(r.problems, problem)
}

// wrong tells of a value that is not what it should be, and of one that would be right.
func (r *reader) wrong(path, value, want, example string) {
	r.add(fmt.Sprintf("%s: %q is not %s; write %q", path, value, want, example))
}

// more goes on about the last problem.
func (r *reader) more(text string) {
	r.problems[len(r.problems)-1] += "; " + text
}

// count reads a whole number. The example is for people who wrote something else.
func (r *reader) count(path, text string, lowest, highest, byDefault, example int64) int64 {
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
		number, unit := text, "s"
		if strings.Contains(text, ".") {
			number = strings.TrimRight(strings.TrimRight(text, "0"), ".")
		}
		if byDefault < time.Second {
			unit = "ms"
		}
		if d, err := time.ParseDuration(number + unit); err == nil && isUsable(d) {
			example = number + unit // the unit is all that is missing
		}
		r.wrong(path, text, "a duration", example)
		return byDefault
	}
	if !isUsable(d) {
		r.wrong(path, text, "a duration of whole microseconds, from 1µs to "+maxDuration.String(), byDefault.String())
		return byDefault
	}
	return d
}

// durationOrOff reads a time that is off by default, and at 0s.
func (r *reader) durationOrOff(path, text string, example time.Duration) time.Duration {
	text = strings.TrimSpace(text)
	d, err := time.ParseDuration(text)
	if text == "" || err == nil && d == 0 {
		return 0
	}
	return r.duration(path, text, example)
}

func isUsable(d time.Duration) bool {
	return d >= time.Microsecond && d <= maxDuration && d%time.Microsecond == 0
}

// flag reads true or false. YAML's other words for them arrive as 1 and 0.
func (r *reader) flag(path, text string) bool {
	switch strings.TrimSpace(text) {
	case "true", "1":
		return true
	case "", "false", "0":
		return false
	}
	r.add(fmt.Sprintf(`%s: %q is neither true nor false; write "true" or "false"`, path, text))
	return false
}

// address checks a host and port. It shows none but those of which it can tell that no password is among them.
func (r *reader) address(path, text string) {
	if isAddress(text) {
		return
	}
	bare, example := text, "redis:6379"
	if scheme := strings.Index(bare, "://"); scheme >= 0 {
		bare = bare[scheme+len("://"):]
	}
	bare = bare[strings.LastIndex(bare, "@")+1:]
	if end := strings.IndexAny(bare, "/?,"); end >= 0 {
		bare = bare[:end]
	}
	if isAddress(bare) {
		example = bare
	} else if isHost(bare) {
		example = net.JoinHostPort(bare, "6379")
	}
	if isHost(text) || hostLike.MatchString(text) {
		r.wrong(path, text, "a host and a port", example)
		return
	}
	r.add(fmt.Sprintf("%s: this is not a host and a port (it is not shown, as a password may be in it); write %q",
		path, example))
}

// hostLike is what has no room for a password.
var hostLike = regexp.MustCompile(`^([a-z]+://)?[A-Za-z0-9._-]*(:[0-9]*)?$`)

func isAddress(text string) bool {
	host, port, err := net.SplitHostPort(text)
	if err != nil || !isHost(host) {
		return false
	}
	number, err := strconv.Atoi(port)
	return err == nil && number >= 1 && number <= 65535
}

func isHost(text string) bool {
	if _, err := netip.ParseAddr(text); err == nil {
		return true
	}
	for i := 0; i < len(text); i++ {
		if !isLetterOrDigit(text[i]) && strings.IndexByte("._-", text[i]) < 0 {
			return false
		}
	}
	return text != ""
}

// content reads a file. It returns nil where that cannot be read.
func (r *reader) content(path, file string) []byte {
	content, err := os.ReadFile(file)
	if err != nil {
		r.add(fmt.Sprintf("%s: %s; write the name of a file that Traefik can read", path, err))
		return nil
	}
	return content
}

// unknown tells of keys that there are not, and of the valid one that each looks like, or of all where it looks like none.
func (r *reader) unknown(path string, found map[string]interface{}, valid ...string) {
	var keys []string
	for key := range found {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	for _, key := range keys {
		near := nearest(key, valid)
		if near == "" {
			r.add(fmt.Sprintf("%s%s: there is no such key; valid keys: %s", path, key, strings.Join(valid, ", ")))
		} else {
			r.add(fmt.Sprintf("%s%s: there is no such key; did you mean %q?", path, key, near))
		}
	}
}

// nearest returns the valid word that takes the fewest changes of a letter to write. It returns "" where there is none that
// takes changes in half of it at the most, or has the word for a part.
func nearest(word string, valid []string) string {
	word = strings.ToLower(word)
	best, bestDistance := "", 0
	for _, candidate := range valid {
		other := strings.ToLower(candidate)
		d := distance(word, other)
		near := 2*d <= len(other) || len(word) > 2 && strings.Contains(other, word)
		if near && (best == "" || d < bestDistance) {
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

// isFraction tells whether the text is a positive number between whole ones.
func isFraction(text string) bool {
	number, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	return err == nil && number > 0 && number < maxCount && number != float64(int64(number))
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
