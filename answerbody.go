package resilience

import (
	"net/http"
	"strings"
)

// A body of an answer may hold placeholders: {retryAfter}, the seconds in Retry-After, or 0 without it; {limit}, the name of the limit that
// refused, or nothing; and {requestID}, the X-Request-Id of the request. A word in braces that is none of them is an error. Other braces are
// text, such as those of JSON.
const (
	placeRetryAfter = "retryAfter"
	placeLimit      = "limit"
	placeRequestID  = "requestID"
)

var placeholderNames = []string{placeRetryAfter, placeLimit, placeRequestID}

// answerHeader is a header that the configuration adds to an answer.
type answerHeader struct {
	name   string
	values []string
}

// splitBody splits a text at its placeholders: the pieces at odd places are words that were in braces.
func splitBody(text string) []string {
	var pieces []string
	begin := 0
	for i := 0; i < len(text); i++ {
		if text[i] != '{' {
			continue
		}
		end := i + 1
		for end < len(text) && isLetterOrDigit(text[end]) {
			end++
		}
		if end > i+1 && end < len(text) && text[end] == '}' && !isDigit(text[i+1]) {
			pieces = append(pieces, text[begin:i], text[i+1:end])
			begin = end + 1
			i = end
		}
	}
	return append(pieces, text[begin:])
}

func isDigit(b byte) bool { return b >= '0' && b <= '9' }

func isPlaceholder(word string) bool {
	return word == placeRetryAfter || word == placeLimit || word == placeRequestID
}

// bodyFor returns the body with its placeholders filled in.
func (a *preparedAnswer) bodyFor(retryAfter, limit, requestID string) string {
	if a.pieces == nil {
		return string(a.body)
	}
	all := append([]string{}, a.pieces...)
	for i, piece := range all {
		if i%2 == 1 {
			switch piece {
			case placeRetryAfter:
				all[i] = retryAfter
			case placeLimit:
				all[i] = limit
			default:
				all[i] = requestID
			}
		}
	}
	return strings.Join(all, "")
}

// fillIn returns the answer to a request, whose placeholders are filled in.
func fillIn(a *preparedAnswer, r *http.Request, retryAfter []string, limit string) *preparedAnswer {
	seconds := "0"
	if retryAfter != nil {
		seconds = retryAfter[0]
	}
	filled := newAnswer(a.status, a.bodyFor(seconds, limit, requestID(r)), a.call)
	filled.kind = a.kind
	return filled
}

// maxRequestID is how many bytes of a request's identifier an answer repeats.
const maxRequestID = 128

// requestID returns the X-Request-Id of a request. Clients choose it: it is cut at maxRequestID bytes, and each byte becomes an underscore
// that would mean something in JSON, HTML or a header.
func requestID(r *http.Request) string {
	id := r.Header.Get("X-Request-Id")
	if len(id) > maxRequestID {
		id = id[:maxRequestID]
	}
	made := []byte(id)
	for i := 0; i < len(made); i++ {
		if !isLetterOrDigit(made[i]) && strings.IndexByte("._~:/=+@,-", made[i]) < 0 {
			made[i] = '_'
		}
	}
	return string(made)
}
