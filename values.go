package resilience

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"sort"
	"strconv"
	"strings"
)

// problems reads the values of a configuration and collects what is wrong with them.
type problems struct {
	problems []string
}

// err returns all problems as one error, or nil.
func (r *problems) err() error {
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

func (r *problems) add(problem string) {
	r.problems = append(r.problems, problem)
}

// invalid adds a value that is not what it should be, and says what would be right.
func (r *problems) invalid(path, value, want string) {
	r.add(fmt.Sprintf("%s: %q is not %s", path, value, want))
}

// extend adds to the last problem.
func (r *problems) extend(text string) {
	r.problems[len(r.problems)-1] += "; " + text
}

// count reads a whole number.
func (r *problems) count(path, text string, lowest, highest, byDefault int64) int64 {
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
		r.invalid(path, text, fmt.Sprintf("a whole number from %d to %d", lowest, highest))
		return byDefault
	}
	return number
}

// flag reads true or false. YAML's other words for them arrive as 1 and 0.
func (r *problems) flag(path, text string) bool {
	switch strings.TrimSpace(text) {
	case "true", "1":
		return true
	case "", "false", "0":
		return false
	}
	r.add(fmt.Sprintf(`%s: %q is neither true nor false; write "true" or "false"`, path, text))
	return false
}

// flagOr is flag with another value where the text is empty.
func (r *problems) flagOr(path, text string, byDefault bool) bool {
	if strings.TrimSpace(text) == "" {
		return byDefault
	}
	return r.flag(path, text)
}

// address checks a host and port. It shows a text only if there can be no password in it, and suggests an address with the same host, and
// with its port if there is one, or else with that of the example.
func (r *problems) address(path, text, example string) {
	if isAddress(text) {
		return
	}
	if strings.HasPrefix(text, "/") || strings.HasPrefix(text, "./") || strings.HasPrefix(text, "unix:") {
		r.add(path + `: this is the name of a socket, and only TCP is supported; write a host and a port, such as "` + example + `"`)
		return
	}
	problem := fmt.Sprintf("%q is not a host and a port", text)
	if !isHost(text) && !hostLike.MatchString(text) {
		problem = "this is not a host and a port (it is not shown, as a password may be in it)"
	}
	advice := fmt.Sprintf("such as %q", example)
	if right := addressIn(text, example[strings.LastIndex(example, ":"):]); right != "" {
		advice = fmt.Sprintf("write %q", right)
		problem += ";"
	} else {
		problem += ","
	}
	if strings.ContainsAny(text, "/@?,") {
		advice += "; user, password, database and TLS have keys of their own"
	}
	r.add(path + ": " + problem + " " + advice)
}

// addressIn returns the host and port in a text of another form, with the usual port (":6379") if there is none, or "" if the text has no
// valid host or port.
func addressIn(text, usualPort string) string {
	if scheme := strings.Index(text, "://"); scheme >= 0 {
		text = text[scheme+len("://"):]
	}
	text = text[strings.LastIndex(text, "@")+1:]
	if end := strings.IndexAny(text, "/?,"); end >= 0 {
		text = text[:end]
	}
	if isAddress(text) {
		return text
	}
	host := strings.TrimSuffix(text, ":")
	if colon := strings.LastIndex(text, ":"); colon > 0 && text[colon:] == usualPort {
		// An IPv6 address that lacks its brackets, and not one that happens to end like this.
		if _, err := netip.ParseAddr(text[:colon]); err == nil {
			host = text[:colon]
		}
	}
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		host = host[1 : len(host)-1]
	}
	if !isHost(host) {
		return ""
	}
	return net.JoinHostPort(host, usualPort[1:])
}

// Examples of addresses, with the usual ports.
const (
	redisExample    = "redis:6379"
	sentinelExample = "sentinel:26379"
)

// hostLike matches what cannot contain a password.
var hostLike = regexp.MustCompile(`^([a-z]+://)?([A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]*\])(:[0-9]*)?$`)

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

// unknown adds keys that do not exist, each with the valid key that it looks like, or with all of them.
func (r *problems) unknown(path string, found map[string]interface{}, valid ...string) {
	var keys []string
	for key := range found {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	for _, key := range keys {
		near := nearest(key, valid)
		key = wordOf(key)
		if near == "" {
			r.add(fmt.Sprintf("%s%s: there is no such key; valid keys: %s", path, key, strings.Join(valid, ", ")))
		} else {
			r.add(fmt.Sprintf("%s%s: there is no such key; did you mean %q?", path, key, near))
		}
	}
}

// wordOf returns a text as a message may contain it: as it is if it is plain, and quoted otherwise.
func wordOf(text string) string {
	quoted := strconv.Quote(text)
	if quoted == `"`+text+`"` && text != "" {
		return text
	}
	return quoted
}

// nearest returns the valid word with the smallest edit distance. It returns "" if every valid word differs in more than half of its letters
// and does not contain the word.
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

// distance is the Levenshtein distance.
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

// isFraction reports whether the text is a positive number that is not whole.
func isFraction(text string) bool {
	number, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	return err == nil && number > 0 && number < maxCount && number != float64(int64(number))
}

// isName reports whether the text may be part of a key in Redis as it is.
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
