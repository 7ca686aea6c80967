package identity

import (
	"errors"
	"net/http"
	"path"
	"regexp"
	"strings"
)

// A pattern of paths:
//
//	{name}  one whole segment: at least one character, and no slash; at least one and at most eight in a pattern
//	*       any run of characters, also none, also with slashes
//	/*      at the end: as above, or nothing at all, not even the slash
//
// Anything else stands for itself. The pattern matches the whole path, decoded. What the names match is the value, joined by slashes; what
// follows a semicolon in such a segment is a parameter, which does not count. A path that contains an encoded slash, an empty segment, or
// the segments . or .. matches no pattern: which of its segments is which depends on who reads it.

const (
	maxPattern  = 256 // bytes of a pattern
	maxCaptures = 8
)

var (
	errPatternStart    = errors.New("does not begin with /")
	errPatternLength   = errors.New("is longer than 256 bytes")
	errPatternOther    = errors.New("holds one of ? # % = or a blank; a pattern is a decoded path, without a query")
	errPatternBraces   = errors.New("holds a { or } without the other, or no name of letters, digits and _ between them")
	errPatternSegment  = errors.New("holds a {name} that is not a whole segment")
	errPatternCaptures = errors.New("holds none or more than eight of {name}")
	errPatternTwice    = errors.New("holds the same {name} twice")
	errPatternUnclean  = errors.New("holds an empty segment, or one that is . or ..; no path with such a segment matches")
)

var (
	captureIn  = regexp.MustCompile(`\{([A-Za-z0-9_]+)\}`)
	wildcardIn = regexp.MustCompile(`\{[A-Za-z0-9_]+\}|\*`)
)

// CheckPath returns what is wrong with a pattern of paths, or nil. The error continues a sentence that begins with the pattern.
func CheckPath(pattern string) error {
	switch {
	case !strings.HasPrefix(pattern, "/"):
		return errPatternStart
	case len(pattern) > maxPattern:
		return errPatternLength
	case strings.ContainsAny(pattern, "?#%=") || !IsPlainText(pattern):
		return errPatternOther
	case strings.ContainsAny(captureIn.ReplaceAllString(pattern, ""), "{}"):
		return errPatternBraces
	case !isClean(pattern):
		return errPatternUnclean
	}
	return checkCaptures(pattern)
}

// IsPlainText reports whether a text has no blanks and no control characters.
func IsPlainText(text string) bool {
	for i := 0; i < len(text); i++ {
		if text[i] <= ' ' || text[i] == 0x7f {
			return false
		}
	}
	return true
}

func checkCaptures(pattern string) error {
	seen := map[string]bool{}
	captures := captureIn.FindAllStringSubmatch(pattern, -1)
	for _, capture := range captures {
		if seen[capture[1]] {
			return errPatternTwice
		}
		seen[capture[1]] = true
	}
	whole := 0
	for _, segment := range strings.Split(pattern, "/") {
		if captureIn.FindString(segment) == segment && segment != "" {
			whole++
		}
	}
	if whole < len(captures) {
		return errPatternSegment
	}
	if len(captures) == 0 || len(captures) > maxCaptures {
		return errPatternCaptures
	}
	return nil
}

// pathRegexp returns the regular expression of a valid pattern.
func pathRegexp(pattern string) *regexp.Regexp {
	end := "$"
	if strings.HasSuffix(pattern, "/*") {
		pattern = strings.TrimSuffix(pattern, "/*")
		end = "(?:/.*)?$"
	}
	text := "(?s)^"
	for {
		place := wildcardIn.FindStringIndex(pattern)
		if place == nil {
			return regexp.MustCompile(text + regexp.QuoteMeta(pattern) + end)
		}
		text += regexp.QuoteMeta(pattern[:place[0]])
		if pattern[place[0]] == '*' {
			text += ".*"
		} else {
			text += "([^/;]+)(?:;[^/]*)?"
		}
		pattern = pattern[place[1]:]
	}
}

// pathValue returns the function that returns what the names in a pattern match, or "" if the pattern does not match.
func pathValue(pattern string) func(*http.Request) string {
	matcher := pathRegexp(pattern)
	return func(r *http.Request) string {
		var ( // R2
			text  string
			found []string
		)
		text = r.URL.Path
		if len(text) > maxText || r.URL.RawPath != "" && hasEncodedSlash(r.URL.RawPath) {
			return ""
		}
		found = matcher.FindStringSubmatch(text)
		if found == nil || !isClean(text) {
			return ""
		}
		return strings.Join(found[1:], "/")
	}
}

func hasEncodedSlash(encoded string) bool {
	return strings.Contains(encoded, "%2f") || strings.Contains(encoded, "%2F")
}

// isClean reports whether a path has no empty segment, and none that is . or .. . One slash may end it.
func isClean(text string) bool {
	clean := path.Clean(text)
	return clean == text || clean+"/" == text
}
