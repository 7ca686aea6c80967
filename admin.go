package resilience

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// The admin part of the middleware answers below its path, for all middlewares of this process, whatever its own name. It is meant for a
// router of the internal entry point. With a token every answer but the page, which holds no data, needs it. Without one, only connections
// from this host are answered, unless the configuration says public.

// adminSettings is the admin block of a configuration. nil: there is none.
type adminSettings struct {
	path   string            // without a slash at its end
	token  [sha256.Size]byte // the hash of the token: comparing hashes takes the same time for texts of all lengths
	locked bool              // there is a token
	public bool
}

func readAdmin(r *problems, s *settings, c *AdminConfig) *adminSettings {
	r.unknown("admin.", c.Unknown, "path", "tokenEnv", "tokenFile", "public")
	a := &adminSettings{path: c.Path, public: r.flag("admin.public", c.Public)}
	if a.path == "" {
		a.path = "/resilience"
	}
	a.path = strings.TrimRight(a.path, "/")
	if !strings.HasPrefix(a.path, "/") || strings.ContainsAny(a.path, "?#% ") {
		r.invalid("admin.path", c.Path, `a path that begins with / and holds no ?, #, % or space, and more than a slash, such as "/resilience"`)
	}
	token := readToken(r, c)
	if token != "" {
		a.locked = true
		a.token = sha256.Sum256([]byte(token))
	}
	who := "connections from this host"
	if a.locked {
		who = "whoever has the token"
	} else if a.public {
		who = "everyone"
	}
	if a.locked && a.public {
		s.warnings = append(s.warnings, "admin.public has no effect: there is a token, and every request needs it")
	}
	if a.locked && len(token) < shortToken {
		s.warnings = append(s.warnings, fmt.Sprintf("the token of admin is shorter than %d characters and can be guessed", shortToken))
	}
	if !a.locked && a.public {
		s.warnings = append(s.warnings, "admin is public and has no token: everyone who reaches its router can read and change")
	}
	s.parts = append(s.parts, "admin below "+a.path+"/ for "+who)
	return a
}

// shortToken is the length below which a token draws a warning.
const shortToken = 16

// readToken reads the token. A source that is named but empty is a mistake, which must not open the door.
func readToken(r *problems, c *AdminConfig) string {
	if c.TokenEnv != "" && c.TokenFile != "" {
		r.add("admin: tokenEnv and tokenFile exclude each other; write one of them")
		return ""
	}
	before := len(r.problems)
	if c.TokenEnv != "" {
		token := r.variable("admin.tokenEnv", c.TokenEnv)
		if token == "" && len(r.problems) == before {
			r.add(fmt.Sprintf("admin.tokenEnv: the variable %q is not set in Traefik's environment, or empty; set it to the token, or leave tokenEnv out", c.TokenEnv))
		}
		return token
	}
	if c.TokenFile != "" {
		token := strings.TrimRight(string(r.content("admin.tokenFile", c.TokenFile)), "\r\n")
		if token == "" && len(r.problems) == before {
			r.add(fmt.Sprintf("admin.tokenFile: %q is empty; write the token into it, or leave tokenFile out", c.TokenFile))
		}
		return token
	}
	return ""
}

// The answers of admin that are not data.
var (
	adminUnauthorized = newAnswer(http.StatusUnauthorized, `{"error":"A token is needed: send Authorization: Bearer <token>."}`, nil)
	adminForbidden    = newAnswer(http.StatusForbidden, `{"error":"Forbidden: only connections from this host are answered, unless there is a token."}`, nil)
	adminNotFound     = newAnswer(http.StatusNotFound, `{"error":"Not found."}`, nil)
	adminUnavailable  = newAnswer(http.StatusServiceUnavailable, `{"error":"Redis is unavailable."}`, nil)
	adminCrossSite    = newAnswer(http.StatusForbidden, `{"error":"Forbidden: a change needs Content-Type: application/json or an X-Resilience header, and no other origin."}`, nil)
	adminAnyMethod    = []string{"GET, HEAD"}
	bearerOnly        = []string{`Bearer realm="resilience"`}
	adminNoStore      = []string{"no-store"}
	adminNoSniff      = []string{"nosniff"}
	adminNoReferrer   = []string{"no-referrer"}
)

// adminHandler answers below the path, and passes all other requests on.
type adminHandler struct {
	*adminSettings
	m        *Middleware
	registry *registry
	next     http.Handler
}

func (a *adminHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	if path != a.path && !strings.HasPrefix(path, a.path+"/") {
		a.next.ServeHTTP(w, r)
		return
	}
	header := w.Header()
	header["Cache-Control"] = adminNoStore
	header["X-Content-Type-Options"] = adminNoSniff
	header["Referrer-Policy"] = adminNoReferrer
	if !a.locked && !a.public && !fromLoopback(r) {
		adminForbidden.write(w, r)
		return
	}
	rest := strings.TrimPrefix(path, a.path)
	if rest == "" {
		a.redirect(w, r)
		return
	}
	if rest == "/" {
		a.read(w, r, a.servePage)
		return
	}
	if a.locked && !a.authorized(r) {
		header["Www-Authenticate"] = bearerOnly
		adminUnauthorized.write(w, r)
		return
	}
	a.serve(w, r, rest)
}

// serve answers a request that may be answered. rest is its path below admin's.
func (a *adminHandler) serve(w http.ResponseWriter, r *http.Request, rest string) {
	switch {
	case rest == "/status":
		a.read(w, r, a.serveStatus)
	case rest == "/metrics":
		a.read(w, r, a.serveMetrics)
	case strings.HasPrefix(rest, "/buckets/"):
		a.serveBucket(w, r, rest)
	case strings.HasPrefix(rest, "/circuits/"):
		a.serveCircuit(w, r, rest)
	default:
		adminNotFound.write(w, r)
	}
}

// read calls a function that only reads, for the methods that do.
func (a *adminHandler) read(w http.ResponseWriter, r *http.Request, serve func(w http.ResponseWriter, r *http.Request)) {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		serve(w, r)
		return
	}
	w.Header()["Allow"] = adminAnyMethod
	wrongMethod.write(w, r)
}

// redirect leads from the path to that of the page.
func (a *adminHandler) redirect(w http.ResponseWriter, r *http.Request) {
	w.Header()["Location"] = []string{(&url.URL{Path: a.path + "/"}).EscapedPath()}
	w.Header()["Content-Length"] = []string{"0"}
	if r.ContentLength != 0 {
		closeAfter(w.Header(), r)
	}
	w.WriteHeader(http.StatusPermanentRedirect)
}

// fromLoopback reports whether the connection comes from this host. No header counts: clients write headers.
func fromLoopback(r *http.Request) bool {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	address, err := netip.ParseAddr(host)
	return err == nil && address.Unmap().IsLoopback()
}

// authorized reports whether a request has the token.
func (a *adminHandler) authorized(r *http.Request) bool {
	lines := r.Header["Authorization"]
	if len(lines) != 1 {
		return false
	}
	const scheme = "bearer "
	text := lines[0]
	if len(text) < len(scheme) || !strings.EqualFold(text[:len(scheme)], scheme) {
		return false
	}
	given := sha256.Sum256([]byte(strings.TrimSpace(text[len(scheme):])))
	return subtle.ConstantTimeCompare(given[:], a.token[:]) == 1
}

// writeAdmin answers with a status and a body of a type.
func writeAdmin(w http.ResponseWriter, r *http.Request, status int, kind string, body []byte) {
	header := w.Header()
	header["Content-Type"] = []string{kind}
	header["Content-Length"] = []string{strconv.Itoa(len(body))}
	if r.ContentLength != 0 {
		closeAfter(header, r)
	}
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		w.Write(body)
	}
}
