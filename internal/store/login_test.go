package store

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// files stand for the files of passwords and certificates. It is safe for concurrent use.
type files struct {
	mu    sync.Mutex
	login *Login
	reads int
}

func (f *files) set(login *Login) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.login = login
}

func (f *files) read() *Login {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reads++
	return f.login
}

func (f *files) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.reads
}

// A password that is changed in Redis and in its file is used when the next connection is made, and no call fails.
func TestLogin_aChangedPasswordIsReadAgain(t *testing.T) {
	server := redistest.Start(t, "--requirepass", "one")
	server.Login("", "one")
	f := &files{login: &Login{Password: "one", Version: "1"}}
	s, n := newUsedStore(t, Settings{Address: server.Addr(), Password: "one", LoginVersion: "1", Reread: f.read})
	require.Equal(t, 0, f.count())

	server.Do("CONFIG", "SET", "requirepass", "two")
	server.Login("", "two")
	requireAnswers(t, s) // a connection that was made stays
	killConnections(server)
	requireUnavailable(t, s) // the file still has the old one
	n.await(t, 1)
	require.Equal(t, "AUTH: WRONGPASS: unknown user or wrong password", n.get(0).Error())
	f.set(&Login{Password: "two", Version: "2"})
	awaitAvailable(t, s)
	requireAnswers(t, s)
	n.await(t, 2)

	server.Do("CONFIG", "SET", "requirepass", "three")
	server.Login("", "three")
	f.set(&Login{Password: "three", Version: "3"})
	reads := f.count()
	killConnections(server)
	requireAnswers(t, s)
	require.Equal(t, reads+1, f.count())
	require.Equal(t, 2, n.count())

	server.Kill()
	requireUnavailable(t, s)
	awaitFailedChecks(t, s)
	require.Equal(t, reads+1, f.count(), "a Redis that does not answer is no reason")
}

// The sentinels' password is read again as well.
func TestLogin_aChangedPasswordOfSentinels(t *testing.T) {
	server := redistest.Start(t)
	sentinel := redistest.StartSentinel(t, "requirepass two\nsentinel monitor m 127.0.0.1 "+server.Port()+" 1\n")
	f := &files{login: &Login{SentinelPassword: "two", Version: "2"}}
	s, n := newStore(t, Settings{
		Address: sentinel.Addr(), Sentinel: &SentinelSettings{Master: "m", Password: "one"}, LoginVersion: "1", Reread: f.read,
	})
	requireAnswers(t, s)
	require.Equal(t, 1, f.count())
	require.Equal(t, 0, n.count())
}

// authority signs certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	content, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(content)
	require.NoError(t, err)
	return &authority{t: t, cert: cert, key: key}
}

// pool returns the authority as those that are trusted.
func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// issue returns a certificate for 127.0.0.1 and its key, in PEM form.
func (a *authority) issue() (cert, key []byte) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(a.t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "server"}, NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	content, err := x509.CreateCertificate(rand.Reader, template, a.cert, &private.PublicKey, a.key)
	require.NoError(a.t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(a.t, err)
	cert = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: content})
	key = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
	return cert, key
}

func (a *authority) login(version string) *Login {
	cert, key := a.issue()
	pair, err := tls.X509KeyPair(cert, key)
	require.NoError(a.t, err)
	return &Login{Version: version, TLS: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: a.pool(), Certificates: []tls.Certificate{pair}}}
}

// files writes the certificate of a server, its key and the authority, and returns the server's arguments.
func (a *authority) files() []string {
	folder := a.t.TempDir()
	cert, key := a.issue()
	for name, content := range map[string][]byte{
		"cert": cert, "key": key, "ca": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}),
	} {
		require.NoError(a.t, os.WriteFile(filepath.Join(folder, name), content, 0o600))
	}
	return []string{
		"--tls-port", redistest.FreePort(a.t), "--tls-cert-file", filepath.Join(folder, "cert"), "--tls-key-file", filepath.Join(folder, "key"),
		"--tls-ca-cert-file", filepath.Join(folder, "ca"), "--tls-auth-clients", "yes",
	}
}

// Certificates of another authority, on both sides: the new ones are read when the old ones are refused, by this side or, which
// TLS 1.3 shows late, by the other.
func TestLogin_changedCertificatesAreReadAgain(t *testing.T) {
	previous, current := newAuthority(t), newAuthority(t)
	args := current.files()
	redistest.Start(t, args...)
	half := previous.login("1")
	half.TLS.RootCAs = current.pool()
	for _, row := range []struct {
		name  string
		login *Login
	}{
		{"the server's is not trusted", previous.login("1")},
		{"ours is not trusted", half},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			f := &files{login: current.login("2")}
			s, n := newStore(t, Settings{Address: "127.0.0.1:" + args[1], TLS: row.login.TLS, LoginVersion: "1", Reread: f.read})
			awaitAnswers(t, s)
			require.Equal(t, 1, f.count())
			require.LessOrEqual(t, n.count(), 2)
		})
	}
}

// watchedOverTLS starts a sentinel and its master, and a node that serves all slots of a cluster. All show certificates of the
// authority and require one. It returns the settings for both, without TLS.
func (a *authority) watchedOverTLS() (sentinel, cluster Settings) {
	master := a.files()
	redistest.Start(a.t, master...)
	watcher := a.files()
	configuration := "tls-replication yes\nsentinel monitor m 127.0.0.1 " + master[1] + " 1\n"
	for i := 0; i < len(watcher); i += 2 {
		configuration += strings.TrimPrefix(watcher[i], "--") + " " + watcher[i+1] + "\n"
	}
	redistest.StartSentinel(a.t, configuration)
	node := a.files()
	server := redistest.Start(a.t, append(node, "--cluster-enabled", "yes", "--cluster-port", redistest.FreePort(a.t), "--tls-cluster", "yes")...)
	serveAllSlots(a.t, server)
	return Settings{Address: "127.0.0.1:" + watcher[1], Sentinel: &SentinelSettings{Master: "m"}},
		Settings{Address: "127.0.0.1:" + node[1], Cluster: true, HashTag: "{a}"}
}

// serveAllSlots makes a node a whole cluster.
func serveAllSlots(t *testing.T, node *redistest.Server) {
	t.Helper()
	node.Do("CLUSTER", "ADDSLOTSRANGE", 0, slots-1)
	require.Eventually(t, func() bool { return strings.Contains(node.Text("CLUSTER", "INFO"), "cluster_state:ok") }, 2*patience, 5*time.Millisecond)
}

// TLS is for sentinels, for the master that they announce, and for the nodes of a cluster, each by its own address.
func TestLogin_tlsOfSeveralServers(t *testing.T) {
	a := newAuthority(t)
	login := a.login("1")
	sentinel, cluster := a.watchedOverTLS()
	for _, row := range []struct {
		name     string
		settings Settings
	}{
		{"sentinel", sentinel},
		{"cluster", cluster},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			row.settings.TLS = login.TLS
			s, n := newStore(t, row.settings)
			awaitAnswers(t, s)
			require.Equal(t, 0, n.count())
			row.settings.TLS = newAuthority(t).login("2").TLS
			s, n = newStore(t, row.settings)
			requireUnavailable(t, s)
			n.await(t, 1)
			require.Contains(t, n.get(0).Error(), "certificate")
		})
	}
}

// A server that is asked where Redis is may refuse the question rather than the login: an old certificate, with TLS 1.3, and a
// missing password. The login is read again, and no call fails.
func TestLogin_isReadAgainWhenAQuestionIsRefused(t *testing.T) {
	previous, current := newAuthority(t), newAuthority(t)
	overTLS, nodeOverTLS := current.watchedOverTLS()
	half := previous.login("1")
	half.TLS.RootCAs = current.pool()
	overTLS.TLS, nodeOverTLS.TLS = half.TLS, half.TLS

	master := redistest.Start(t)
	sentinel := redistest.StartSentinel(t, "requirepass one\nsentinel monitor m 127.0.0.1 "+master.Port()+" 1\n")
	node := redistest.Start(t, "--cluster-enabled", "yes", "--cluster-port", redistest.FreePort(t))
	serveAllSlots(t, node)
	node.Do("CONFIG", "SET", "requirepass", "one")
	for _, row := range []struct {
		name     string
		settings Settings
		login    *Login
	}{
		{"sentinel, certificate", overTLS, current.login("2")},
		{"cluster, certificate", nodeOverTLS, current.login("2")},
		{"sentinel, password", Settings{Address: sentinel.Addr(), Sentinel: &SentinelSettings{Master: "m"}}, &Login{SentinelPassword: "one", Version: "2"}},
		{"cluster, password", Settings{Address: node.Addr(), Cluster: true, HashTag: "{a}"}, &Login{Password: "one", Version: "2"}},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			f := &files{login: row.login}
			row.settings.LoginVersion, row.settings.Reread = "1", f.read
			row.settings.Timeout = time.Second
			_, n := newUsedStore(t, row.settings)
			require.Equal(t, 0, n.count())
			require.Equal(t, 1, f.count())
		})
	}
}
