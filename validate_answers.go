package resilience

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sort"
	"strconv"
	"strings"
)

// The formats of bodies that the configuration does not write out.
const (
	formatJSON    = "json"
	formatProblem = "problem"
)

const problemType = "application/problem+json"

// ourHeaders are those of an answer that have another key, or that the middleware or the server sets.
var ourHeaders = map[string]string{
	"Content-Type":          "contentType sets it",
	"Content-Length":        "the middleware sets it",
	"Retry-After":           "the middleware sets it",
	"Ratelimit":             "rateLimit.responseHeaders sets it",
	"Ratelimit-Policy":      "rateLimit.responseHeaders sets it",
	"Connection":            "it is between two hops only",
	"Keep-Alive":            "it is between two hops only",
	"Proxy-Connection":      "it is between two hops only",
	"Te":                    "it is between two hops only",
	"Trailer":               "it is between two hops only",
	"Transfer-Encoding":     "it is between two hops only",
	"Upgrade":               "it is between two hops only",
	"X-Ratelimit-Limit":     "rateLimit.responseHeaders sets it",
	"X-Ratelimit-Remaining": "rateLimit.responseHeaders sets it",
	"X-Ratelimit-Reset":     "rateLimit.responseHeaders sets it",
}

// readAnswers returns the refusals of a route.
func readAnswers(r *problems, s *settings, c *AnswersConfig) *refusalSet {
	r.unknown("answers.", c.Unknown, "rateLimited", "circuitOpen", "denied", "unavailable", "format")
	format := strings.TrimSpace(c.Format)
	if format == "" {
		format = formatJSON
	}
	if format != formatJSON && format != formatProblem {
		r.choice("answers.format", format, formatJSON, formatProblem)
	}
	a := &refusalSet{
		rateLimited: readAnswer(r, s, "answers.rateLimited", c.RateLimited, format, rateLimited),
		circuitOpen: readAnswer(r, s, "answers.circuitOpen", c.CircuitOpen, format, circuitOpen),
		denied:      readAnswer(r, s, "answers.denied", c.Denied, format, denied),
		unavailable: readAnswer(r, s, "answers.unavailable", c.Unavailable, format, unavailable),
	}
	if format != formatJSON {
		s.parts = append(s.parts, "answers: "+format)
	}
	return a
}

// choice adds a value that is none of the words, with the one that it looks like.
func (r *problems) choice(path, value string, words ...string) {
	r.invalid(path, value, "one of "+strings.Join(words[:len(words)-1], ", ")+" and "+words[len(words)-1])
	if near := nearest(value, words); near != "" {
		r.extend(fmt.Sprintf("did you mean %q?", near))
	}
}

// readAnswer returns one refusal: the default one, unless the configuration changes anything about it.
func readAnswer(r *problems, s *settings, path string, c *AnswerConfig, format string, byDefault *preparedAnswer) *preparedAnswer {
	if c == nil {
		if format != formatProblem {
			return byDefault
		}
		c = &AnswerConfig{}
	}
	r.unknown(path+".", c.Unknown, "status", "contentType", "body", "headers")
	status := int(r.count(path+".status", c.Status, 400, 599, int64(byDefault.status)))
	kind, body := defaultBody(byDefault, status, format)
	if c.Body != "" {
		body = c.Body
	}
	if c.ContentType != "" {
		kind = c.ContentType
		if !printable(kind) || !strings.Contains(kind, "/") {
			r.invalid(path+".contentType", kind, `a media type, such as "text/plain; charset=utf-8"`)
		}
	}
	r.placeholders(path+".body", body)
	a := prepareAnswer(status, kind, body, byDefault.call)
	a.headers = readHeaders(r, path+".headers", c.Headers)
	if strings.Contains(kind, "json") && !json.Valid([]byte(a.bodyFor("1", "default", "id"))) {
		s.warnings = append(s.warnings, path+".body is not JSON, but its contentType is "+kind+"; write contentType too, such as text/plain")
	}
	return a
}

// defaultBody returns the body, and its type, that an answer with this status has in a format.
func defaultBody(a *preparedAnswer, status int, format string) (kind, body string) {
	if format != formatProblem {
		return a.kind[0], string(a.body)
	}
	title := http.StatusText(status)
	if title == "" {
		title = "Refused"
	}
	body = `{"type":"about:blank","title":"` + title + `","status":` + strconv.Itoa(status) + `,"detail":"` + a.call.message[0] + `"`
	switch a {
	case rateLimited:
		return problemType, body + `,"limit":"{limit}","retryAfter":{retryAfter}}`
	case denied:
		return problemType, body + `}`
	}
	return problemType, body + `,"retryAfter":{retryAfter}}`
}

// placeholders adds the placeholders in a text that do not exist.
func (r *problems) placeholders(path, text string) {
	for i, piece := range splitBody(text) {
		if i%2 == 1 && !isPlaceholder(piece) {
			r.add(fmt.Sprintf("%s: there is no placeholder {%s}; valid ones: {%s}", path, piece, strings.Join(placeholderNames, "}, {")))
			if near := nearest(piece, placeholderNames); near != "" {
				r.extend(fmt.Sprintf("did you mean {%s}?", near))
			}
		}
	}
}

// readHeaders checks headers that are added to an answer, and returns them in the order of their names.
func readHeaders(r *problems, path string, headers map[string]string) []answerHeader {
	var names []string
	for name := range headers {
		names = append(names, name)
	}
	sort.Strings(names)
	var all []answerHeader
	seen := map[string]bool{}
	for _, name := range names {
		value := headers[name]
		canonical := http.CanonicalHeaderKey(name)
		reason := ourHeaders[canonical]
		switch {
		case !isHeaderName(name):
			r.invalid(path, name, `the name of a header, such as "X-Reason"`)
		case reason != "":
			r.add(fmt.Sprintf("%s.%s: this header cannot be added: %s", path, name, reason))
		case strings.HasPrefix(canonical, "Grpc-"):
			r.add(fmt.Sprintf("%s.%s: this header cannot be added: it is gRPC's", path, name))
		case !sendable(value):
			r.add(fmt.Sprintf("%s.%s: the value has control characters; write one line of text", path, name))
		case seen[canonical]:
			r.add(fmt.Sprintf("%s.%s: this header is written twice, as names of headers have no case", path, name))
		default:
			all = append(all, answerHeader{name: canonical, values: []string{value}})
		}
		seen[canonical] = true
		for i, piece := range splitBody(value) {
			if i%2 == 1 && isPlaceholder(piece) {
				r.add(fmt.Sprintf("%s.%s: only a body may hold {%s}", path, name, piece))
			}
		}
	}
	return all
}
