package identity

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
)

// maxToken is the length of the longest line with a bearer token, in bytes.
const maxToken = 16384

// claimValue returns the function that returns a claim of the request's bearer token, or "" if it has none. The token's signature is not
// verified: something before the middleware has to do that.
//
// A claim is a string or a number, which counts as it is written. A name with dots is the claim of that name, or if there is none, a claim
// within claims: a.b is the claim b of the claim a.
func claimValue(name string) func(*http.Request) string {
	levels := strings.Split(name, ".")
	return func(r *http.Request) string {
		//lint:ignore S1021 R2
		var lines []string
		lines = r.Header["Authorization"]
		if len(lines) != 1 || len(lines[0]) > maxToken { // of several lines, it is not known which one was verified
			return ""
		}
		return claimIn(payloadOf(lines[0]), name, levels)
	}
}

// payloadOf returns the payload of a line with a bearer token: the second of a JWT's three parts, decoded. It returns nil for any other line.
func payloadOf(line string) []byte {
	scheme, token, _ := strings.Cut(line, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return nil
	}
	parts := strings.SplitN(strings.Trim(token, " "), ".", 4)
	if len(parts) != 3 {
		return nil
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil
	}
	return payload
}

func claimIn(payload []byte, name string, levels []string) string {
	claims := objectOf(payload)
	if claim := claims[name]; claim != nil {
		return scalar(claim)
	}
	last := len(levels) - 1
	for _, level := range levels[:last] {
		claims = objectOf(claims[level])
	}
	return scalar(claims[levels[last]])
}

// objectOf returns the members of a JSON object, and none of anything else.
func objectOf(text []byte) map[string]json.RawMessage {
	var members map[string]json.RawMessage
	if len(text) == 0 || json.Unmarshal(text, &members) != nil {
		return nil
	}
	return members
}

// scalar returns a JSON string or number as text, and "" for anything else.
func scalar(text json.RawMessage) string {
	if len(text) == 0 {
		return ""
	}
	if text[0] == '-' || text[0] >= '0' && text[0] <= '9' {
		return string(text)
	}
	value := ""
	if json.Unmarshal(text, &value) != nil {
		return "" // null leaves value as it is
	}
	return value
}
