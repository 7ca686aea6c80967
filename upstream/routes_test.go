package main

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestService_answers(t *testing.T) {
	address := start(t)
	cases := []struct {
		method, path string
		status       int
		body         string
	}{
		{"GET", "/health", 200, `{"status":"healthy"}`},
		{"GET", "/ok", 200, `{"status":"ok"}`},
		{"DELETE", "/ok", 200, `{"status":"ok"}`},
		{"GET", "/users", 200, `[{"id":1,"role":"reader"},{"id":2,"role":"writer"},{"id":3,"role":"admin"}]`},
		{"GET", "/products", 200, `[{"id":1,"title":"Lamp","price":24.9},{"id":2,"title":"Chair","price":79},` +
			`{"id":3,"title":"Notebook","price":3.5}]`},
		{"GET", "/fail", 500, `{"error":"failed on purpose"}`},
		{"GET", "/slow?seconds=0.02", 200, `{"status":"ok","waited":"20ms"}`},
		{"POST", "/slow?seconds=0", 200, `{"status":"ok","waited":"0s"}`},
		{"GET", "/status/200", 200, `{"status":200}`},
		{"GET", "/status/599?seconds=0.02", 599, `{"status":599}`},
		{"GET", "/status/204", 204, ``},
		{"GET", "/status/503?body=%7B%22a%22%3A1%7D", 503, `{"a":1}`},
		{"GET", "/", 404, `{"error":"no such path"}`},
		{"GET", "//ok", 404, `{"error":"no such path"}`},
		{"GET", "/ok/", 404, `{"error":"no such path"}`},
		{"GET", "/flag", 200, `{"failing":false}`},
	}
	both(t, func(t *testing.T, client *http.Client) {
		for _, c := range cases {
			response, body := exchange(t, client, c.method, address+c.path, "")
			require.Equal(t, c.status, response.StatusCode, c.path)
			require.Equal(t, c.body, body, c.path)
			require.Equal(t, "application/json", response.Header.Get("Content-Type"), c.path)
		}
	})
}

func TestService_saysWhatIsWrongWithARequest(t *testing.T) {
	address := start(t)
	cases := []struct{ path, problem string }{
		{"/slow?seconds=x", `seconds: "x" is not a number; write 2`},
		{"/slow?seconds=NaN", `seconds: "NaN" is not a number; write 2`},
		{"/slow?seconds=Inf", `seconds: "Inf" is not a number; write 2`},
		{"/slow?seconds=-1", `seconds: -1 is below zero; write 2`},
		{"/status/199", `status: "199" is not a status; write 200 to 599`},
		{"/status/600", `status: "600" is not a status; write 200 to 599`},
		{"/status/", `status: "" is not a status; write 200 to 599`},
		{"/status/200?seconds=x", `seconds: "x" is not a number; write 2`},
		{"/sse?events=x", `events: "x" is not a whole number; write 1 to 1000`},
		{"/sse?events=1001", `events: 1001 is out of range; write 1 to 1000`},
		{"/sse?interval=x", `interval: "x" is not a number; write 0.5`},
		{"/chunks?pieces=0", `pieces: 0 is out of range; write 1 to 1000`},
		{"/chunks?interval=x", `interval: "x" is not a number; write 0.2`},
		{"/chunks?length=x", `length: "x" is not a switch; write 1 or 0`},
		{"/download?bytes=-1", `bytes: -1 is out of range; write 0 to 2147483648`},
		{"/download?bytes=2147483649", `bytes: 2147483649 is out of range; write 0 to 2147483648`},
		{"/abort?after=x", `after: "x" is not a whole number; write 0 to 2147483648`},
		{"/ws?close=x", `close: "x" is not a whole number; write 1000 to 4999`},
		{"/ws?close=1006", `close: 1006 must not be sent; write 1000, 1011 or 3000 to 4999`},
		{"/ws?close=2000", `close: 2000 must not be sent; write 1000, 1011 or 3000 to 4999`},
	}
	for _, c := range cases {
		response, body := get(t, address+c.path)
		require.Equal(t, http.StatusBadRequest, response.StatusCode, c.path)
		require.Equal(t, c.problem, read[problem](t, body).Error, c.path)
	}
}

func TestService_changesOnlyWithPost(t *testing.T) {
	address := start(t)
	for _, path := range []string{"/flag/fail", "/flag/heal", "/stats/reset"} {
		response, body := get(t, address+path)
		require.Equal(t, http.StatusMethodNotAllowed, response.StatusCode, path)
		require.Equal(t, http.MethodPost, response.Header.Get("Allow"), path)
		require.Equal(t, `{"error":"method: GET changes nothing here; use POST"}`, body, path)
	}
	_, body := get(t, address+"/flag")
	require.Equal(t, `{"failing":false}`, body)
}

func TestFlag_failsTheServiceUntilItHeals(t *testing.T) {
	address := start(t)
	steps := []struct {
		turn   string
		status int
	}{{"/flag/fail", 500}, {"/flag/heal", 200}}
	for _, step := range steps {
		response, _ := exchange(t, client(t, 1), http.MethodPost, address+step.turn, "")
		require.Equal(t, http.StatusOK, response.StatusCode)
		for _, path := range []string{"/ok", "/users", "/products"} {
			response, _ := get(t, address+path)
			require.Equal(t, step.status, response.StatusCode, path)
		}
		response, _ = get(t, address+"/health")
		require.Equal(t, http.StatusOK, response.StatusCode)
	}
}
