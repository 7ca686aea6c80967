package resilience

import (
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// thirdRefusal returns the third refusal of each kind by a configuration: the first refusals are other functions' than those that follow.
func thirdRefusal(t *testing.T, kind string, a *AnswersConfig, change func(r *http.Request)) *httptest.ResponseRecorder {
	newProcess(t, 0)
	newStoppedClock(t)
	config := &Config{Answers: a}
	first := 200
	switch kind {
	case "rateLimited":
		config.RateLimit = &RateLimitConfig{Capacity: "1", RefillRate: "1", RefillPeriod: "90s"}
		config.CircuitBreaker = failures("5")
	case "circuitOpen":
		config.CircuitBreaker = &CircuitBreakerConfig{FailureThreshold: "1", ResetTimeout: "30s"}
		first = 500
	case "unavailable":
		config.Redis = &RedisConfig{Address: closedPort, OnError: "deny"}
		config.RateLimit = tokens("1")
		first = 503
	}
	m, up := newInstance(t, config)
	up.will(status(first))
	handler := m.handler
	if kind == "denied" {
		handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			refuseByRule(m, &slowRequest{w: w, r: r, now: m.now()}, "banned")
		})
	} else {
		send(handler, "GET", "/")
	}
	var w *httptest.ResponseRecorder
	for i := 0; i < 3; i++ {
		r := httptest.NewRequest("GET", "/", nil)
		if change != nil {
			change(r)
		}
		w = sendRequest(handler, r)
	}
	return w
}

func TestAnswers_sayWhatTheConfigurationSays(t *testing.T) {
	withID := func(id string) func(r *http.Request) {
		return func(r *http.Request) { r.Header.Set("X-Request-Id", id) }
	}
	all := &AnswerConfig{Status: "420", ContentType: "text/plain", Body: "{retryAfter}|{limit}|{requestID}|{ }", Headers: map[string]string{"x-reason": "busy"}}
	for _, row := range []struct {
		name, kind  string
		answers     *AnswersConfig
		change      func(r *http.Request)
		status      int
		contentType string
		body        string
		retryAfter  string
		reason      string
	}{
		{"no answers", "rateLimited", nil, nil, 429, "application/json", limitedBody, "90", ""},
		{"an empty block", "rateLimited", &AnswersConfig{RateLimited: &AnswerConfig{}}, nil, 429, "application/json", limitedBody, "90", ""},
		{"denied", "denied", nil, nil, 403, "application/json", deniedBody, "", ""},
		{"a status", "rateLimited", &AnswersConfig{RateLimited: &AnswerConfig{Status: "503"}}, nil, 503, "application/json", limitedBody, "90", ""},
		{"all of it", "rateLimited", &AnswersConfig{RateLimited: all}, withID("a-1"), 420, "text/plain", "90|default|a-1|{ }", "90", "busy"},
		{"all of it, open", "circuitOpen", &AnswersConfig{CircuitOpen: all}, withID("a-1"), 420, "text/plain", "30||a-1|{ }", "30", "busy"},
		{"all of it, denied", "denied", &AnswersConfig{Denied: all}, withID("a-1"), 420, "text/plain", "0|banned|a-1|{ }", "", "busy"},
		{"all of it, unavailable", "unavailable", &AnswersConfig{Unavailable: all}, withID("a-1"), 420, "text/plain", "1||a-1|{ }", "1", "busy"},
		{"no identifier", "circuitOpen", &AnswersConfig{CircuitOpen: all}, nil, 420, "text/plain", "30|||{ }", "30", "busy"},
		{"an identifier that breaks out", "circuitOpen", &AnswersConfig{CircuitOpen: all}, withID("\"}<b>\\\x01é\r\n"), 420, "text/plain", "30||___b_______|{ }", "30", "busy"},
		{"a long identifier", "circuitOpen", &AnswersConfig{CircuitOpen: all}, withID(strings.Repeat("a", 500)), 420, "text/plain", "30||" + strings.Repeat("a", 128) + "|{ }", "30", "busy"},
		{"a problem", "rateLimited", &AnswersConfig{Format: "problem"}, nil, 429, "application/problem+json",
			`{"type":"about:blank","title":"Too Many Requests","status":429,"detail":"Too many requests, please try again later.","limit":"default","retryAfter":90}`, "90", ""},
		{"a problem, open", "circuitOpen", &AnswersConfig{Format: "problem"}, nil, 503, "application/problem+json",
			`{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"Service temporarily unavailable due to circuit open.","retryAfter":30}`, "30", ""},
		{"a problem, denied", "denied", &AnswersConfig{Format: "problem"}, nil, 403, "application/problem+json",
			`{"type":"about:blank","title":"Forbidden","status":403,"detail":"Forbidden."}`, "", ""},
		{"a problem with a status", "unavailable", &AnswersConfig{Format: "problem", Unavailable: &AnswerConfig{Status: "599"}}, nil, 599, "application/problem+json",
			`{"type":"about:blank","title":"Refused","status":599,"detail":"Service temporarily unavailable, please try again later.","retryAfter":1}`, "1", ""},
		{"another answer's", "circuitOpen", &AnswersConfig{RateLimited: all}, nil, 503, "application/json", openBody, "30", ""},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			w := thirdRefusal(t, row.kind, row.answers, row.change)
			want := http.Header{"Content-Type": {row.contentType}, "Content-Length": {strconv.Itoa(len(row.body))}}
			if row.retryAfter != "" {
				want.Set("Retry-After", row.retryAfter)
			}
			if row.reason != "" {
				want.Set("X-Reason", row.reason)
			}
			require.Equal(t, row.status, w.Code)
			require.Equal(t, row.body, w.Body.String())
			require.Equal(t, want, w.Result().Header)
		})
	}
}

// gRPC clients understand no other form, whatever the configuration says.
func TestAnswers_leaveCallsAlone(t *testing.T) {
	a := &AnswersConfig{RateLimited: &AnswerConfig{Status: "503", Body: "slow down", Headers: map[string]string{"X-Reason": "busy"}}}
	newProcess(t, 0)
	newStoppedClock(t)
	handler, _ := newGateway(t, &Config{Answers: a, RateLimit: &RateLimitConfig{Capacity: "1", RefillRate: "1", RefillPeriod: "90s"}})
	require.Equal(t, 200, get(handler))
	for i := 0; i < 3; i++ {
		requireCallStatus(t, sendRequest(handler, newCall("application/grpc")), "8", "Too many requests, please try again later.", "90")
	}
}

func TestAnswers_errorsSayWhatWouldBeRight(t *testing.T) {
	one := func(a AnswerConfig) *Config { return &Config{Answers: &AnswersConfig{RateLimited: &a}} }
	headers := func(name, value string) *Config { return one(AnswerConfig{Headers: map[string]string{name: value}}) }
	for _, row := range []struct {
		name    string
		config  *Config
		problem string
	}{
		{"a success", one(AnswerConfig{Status: "200"}), `answers.rateLimited.status: "200" is not a whole number from 400 to 599`},
		{"no status", one(AnswerConfig{Status: "600"}), `answers.rateLimited.status: "600" is not a whole number from 400 to 599`},
		{"a type", one(AnswerConfig{ContentType: "json"}), `answers.rateLimited.contentType: "json" is not a media type, such as "text/plain; charset=utf-8"`},
		{"a placeholder", one(AnswerConfig{Body: `{"after":{retryafter}}`}),
			`answers.rateLimited.body: there is no placeholder {retryafter}; valid ones: {retryAfter}, {limit}, {requestID}; did you mean {retryAfter}?`},
		{"a header's name", headers("X Reason", "a"), `answers.rateLimited.headers: "X Reason" is not the name of a header, such as "X-Reason"`},
		{"a header's value", headers("X-Reason", "a\r\nb"), `answers.rateLimited.headers.X-Reason: the value has control characters; write one line of text`},
		{"a length", headers("content-length", "5"), `answers.rateLimited.headers.content-length: this header cannot be added: the middleware sets it`},
		{"a hop", headers("Transfer-Encoding", "chunked"), `answers.rateLimited.headers.Transfer-Encoding: this header cannot be added: it is between two hops only`},
		{"gRPC's", headers("grpc-status", "0"), `answers.rateLimited.headers.grpc-status: this header cannot be added: it is gRPC's`},
		{"a placeholder in a header", headers("X-Id", "{requestID}"), `answers.rateLimited.headers.X-Id: only a body may hold {requestID}`},
		{"twice", one(AnswerConfig{Headers: map[string]string{"x-a": "1", "X-A": "2"}}),
			`answers.rateLimited.headers.x-a: this header is written twice, as names of headers have no case`},
		{"a format", &Config{Answers: &AnswersConfig{Format: "problems"}}, `answers.format: "problems" is not one of json and problem; did you mean "problem"?`},
		{"headers of the limit", &Config{RateLimit: &RateLimitConfig{ResponseHeaders: "rate-limit"}},
			`rateLimit.responseHeaders: "rate-limit" is not one of none, ratelimit, x-ratelimit and both; did you mean "ratelimit"?`},
		{"when", &Config{RateLimit: &RateLimitConfig{ResponseHeadersOn: "refusals"}},
			`rateLimit.responseHeadersOn: "refusals" is not one of always and refused; did you mean "refused"?`},
		{"a key", &Config{Answers: &AnswersConfig{Unknown: map[string]interface{}{"ratelimit": "1"}}}, `answers.ratelimit: there is no such key; did you mean "rateLimited"?`},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			requireProblem(t, row.config, row.problem)
		})
	}
}

func TestAnswers_warnOfABodyThatIsNotJSON(t *testing.T) {
	for body, warns := range map[string]int{"slow down": 1, `{"after":{retryAfter},"limit":"{limit}","id":"{requestID}"}`: 0} {
		s := mustRead(t, &Config{Answers: &AnswersConfig{RateLimited: &AnswerConfig{Body: body}}})
		require.Len(t, s.warnings, warns, body)
	}
}
