package identity

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

// A cookie or a parameter may be there several times, and frameworks differ in which one they take: the first, the last, or all. If the
// gateway took another one than the service, a client could change the one that counts here at will. So a value counts only if it is the
// only one.

// maxRepeats is how often a cookie may be there with the same value.
const maxRepeats = 4

// cookieValue returns the function that returns the value of a cookie in one spelling, or "" if it is missing or ambiguous.
func cookieValue(name string) func(*http.Request) string {
	matcher := regexp.MustCompile(`(?:^|;)[ \t]*` + regexp.QuoteMeta(name) + `[ \t]*=([^;]*)`)
	return func(r *http.Request) string {
		//lint:ignore S1021 R2
		var line string
		line = strings.Join(r.Header["Cookie"], ";")
		if len(line) > maxText || !strings.Contains(line, name) {
			return ""
		}
		return cookieOf(matcher.FindAllStringSubmatch(line, maxRepeats+1))
	}
}

func cookieOf(found [][]string) string {
	if len(found) == 0 || len(found) > maxRepeats {
		return ""
	}
	var values []string
	for _, one := range found {
		values = append(values, plainCookie(one[1]))
	}
	return onlyOne(values)
}

// plainCookie returns one spelling of a cookie's value: without blanks and quotation marks around it, decoded, and with each blank as a
// plus. Some services read all these spellings as the same value.
func plainCookie(value string) string {
	value = strings.Trim(value, " \t\"")
	if strings.Contains(value, "%") {
		if decoded, err := url.PathUnescape(value); err == nil {
			value = decoded
		}
	}
	return strings.ReplaceAll(value, " ", "+")
}

// queryValue returns the function that returns the value of a parameter of the query, or "" if it is missing or ambiguous. A semicolon
// ends a parameter, as some services read it.
func queryValue(name string) func(*http.Request) string {
	return func(r *http.Request) string {
		//lint:ignore S1021 R2
		var query string
		query = r.URL.RawQuery
		if query == "" || len(query) > maxText {
			return ""
		}
		values, _ := url.ParseQuery(strings.ReplaceAll(query, ";", "&"))
		return onlyOne(values[name])
	}
}

// onlyOne returns the value that all values are, or "".
func onlyOne(values []string) string {
	if len(values) == 0 {
		return ""
	}
	for _, value := range values {
		if value != values[0] {
			return ""
		}
	}
	return values[0]
}
