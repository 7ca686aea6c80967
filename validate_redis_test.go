package resilience

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRead_redis(t *testing.T) {
	s := mustRead(t, &Config{Redis: &RedisConfig{
		Address: " redis.internal:6380 ", Username: "gateway", Password: "s3cret", DB: "2",
		Timeout: "50ms", DialTimeout: "1.5s", KeyPrefix: "shop", OnError: "deny",
	}})

	require.Equal(t, "redis.internal:6380", s.redis.Address)
	require.Equal(t, "gateway", s.redis.Username)
	require.Equal(t, "s3cret", s.redis.Password)
	require.Equal(t, 2, s.redis.DB)
	require.True(t, s.redis.TLS == nil)
	require.Equal(t, 50*time.Millisecond, s.redis.Timeout)
	require.Equal(t, 1500*time.Millisecond, s.redis.DialTimeout)
	require.Equal(t, "shop", s.redis.KeyPrefix)
	require.Equal(t, "deny", s.onError)
	require.Equal(t, []string{"redis redis.internal:6380, db 2, on error: deny"}, s.parts)
}

func TestRead_addresses(t *testing.T) {
	for _, address := range []string{
		"redis:6379", "10.0.0.1:6379", "[::1]:6379", "[fe80::1%eth0]:6379", "redis_1.shop-net:1", "redis:65535",
	} {
		address := address
		t.Run(address, func(t *testing.T) {
			require.Equal(t, address, mustRead(t, &Config{Redis: &RedisConfig{Address: address}}).redis.Address)
		})
	}
}

func TestRead_topologies(t *testing.T) {
	require.NoError(t, os.Setenv("TEST_SENTINEL_PASSWORD", "s3cret"))
	sentinel := mustRead(t, &Config{Name: "shop", Redis: &RedisConfig{
		Address:  " a:26379, b:26379,a:26379 ,[::1]:26379",
		Sentinel: &SentinelConfig{Master: "mymaster", Username: "asks", PasswordEnv: "TEST_SENTINEL_PASSWORD"}, DB: "3",
	}})
	require.Equal(t, "a:26379,b:26379,[::1]:26379", sentinel.redis.Address)
	require.Equal(t, "mymaster", sentinel.redis.Sentinel.Master)
	require.Equal(t, "asks", sentinel.redis.Sentinel.Username)
	require.Equal(t, "s3cret", sentinel.redis.Sentinel.Password)
	require.Equal(t, "", sentinel.redis.Password)
	require.Equal(t, 3, sentinel.redis.DB)
	require.Equal(t, []string{"redis mymaster of the sentinels a:26379, b:26379, [::1]:26379, db 3, on error: local"}, sentinel.parts)

	cluster := mustRead(t, &Config{Name: "shop", Redis: &RedisConfig{Address: "a:6379,b:6379", Cluster: "true", DB: "0"}})
	require.True(t, cluster.redis.Cluster)
	require.Equal(t, "{shop}", cluster.redis.HashTag)
	require.Equal(t, []string{"redis cluster a:6379, b:6379, db 0, on error: local"}, cluster.parts)
	require.True(t, cluster.redis.Sentinel == nil)
	other := mustRead(t, &Config{Name: "other", Redis: &RedisConfig{Address: "a:6379,b:6379", Cluster: "true"}})
	require.NotEqual(t, cluster.connection, other.connection, "each name has the node that serves its slot")
}

// Labels and files with variables cannot leave a block out.
func TestRead_anEmptyBlockOfSentinelsIsNone(t *testing.T) {
	s := mustRead(t, &Config{Redis: &RedisConfig{Address: "a:6379", Sentinel: &SentinelConfig{}}})
	require.True(t, s.redis.Sentinel == nil)
	require.Equal(t, []string{"redis a:6379, db 0, on error: local"}, s.parts)
	requireProblem(t, &Config{Redis: &RedisConfig{Address: "a:1,b:2", Sentinel: &SentinelConfig{}}},
		"redis.address: 2 addresses, but nothing says what they are; write redis.sentinel.master, the name of a master, "+
			`if they are sentinels, or redis.cluster: "true" if they are nodes of a Redis Cluster`)
}

// A certificate must name the server that is dialled, which a list of others does not tell.
func TestRead_tlsOfSeveralServers(t *testing.T) {
	for _, row := range []struct {
		config RedisConfig
		want   string
	}{
		{RedisConfig{Address: "a:1"}, "a"},
		{RedisConfig{Address: "a:1", Cluster: "true"}, ""},
		{RedisConfig{Address: "a:1,b:1", Sentinel: &SentinelConfig{Master: "m"}}, ""},
	} {
		row := row
		row.config.TLS = &TLSConfig{Enabled: "true"}
		require.Equal(t, row.want, mustRead(t, &Config{Redis: &row.config}).redis.TLS.ServerName)
	}
}

func TestRead_reportsInvalidTopologies(t *testing.T) {
	const hidden = "this is not a host and a port (it is not shown, as a password may be in it)"
	for _, row := range []struct {
		name    string
		config  RedisConfig
		message string
	}{
		{"several addresses", RedisConfig{Address: "a:6379, b:6379"},
			"redis.address: 2 addresses, but nothing says what they are; write redis.sentinel.master, the name of a master, " +
				`if they are sentinels, or redis.cluster: "true" if they are nodes of a Redis Cluster`},
		{"several addresses, one without a port", RedisConfig{Address: "a:6379,b"},
			"redis.address: 2 addresses, but nothing says what they are; write redis.sentinel.master, the name of a master, " +
				`if they are sentinels, or redis.cluster: "true" if they are nodes of a Redis Cluster; each of them needs a port`},
		{"both", RedisConfig{Address: "a:1", Cluster: "true", Sentinel: &SentinelConfig{Master: "m"}},
			"redis: sentinel and cluster exclude each other; write one of them"},
		{"a cluster by another word", RedisConfig{Address: "a:1", Cluster: "yes"},
			`redis.cluster: "yes" is neither true nor false; write "true" or "false"`},
		{"a cluster with a database", RedisConfig{Address: "a:1", Cluster: "true", DB: "2"},
			"redis.db: a Redis Cluster has only database 0, not 2; leave db out"},
		{"a cluster without nodes", RedisConfig{Cluster: "true"},
			`redis.address: it is missing; write some nodes of the cluster, such as "redis-0:6379,redis-1:6379"`},
		{"a node that is no address", RedisConfig{Address: "a:1,b", Cluster: "true"},
			`redis.address: "b" is not a host and a port; write "b:6379"`},
		{"a node with a password", RedisConfig{Address: "a:1,password=s3cret", Cluster: "true"},
			"redis.address: " + hidden + `, such as "redis:6379"`},
		{"a sentinel without a port", RedisConfig{Address: "a:1,sentinel-1", Sentinel: &SentinelConfig{Master: "m"}},
			`redis.address: "sentinel-1" is not a host and a port; write "sentinel-1:26379"`},
		{"a sentinel without brackets", RedisConfig{Address: "2001:db8::1:26379", Sentinel: &SentinelConfig{Master: "m"}},
			"redis.address: " + hidden + `; write "[2001:db8::1]:26379"`},
		{"a sentinel without a host", RedisConfig{Address: ":26379", Sentinel: &SentinelConfig{Master: "m"}},
			`redis.address: ":26379" is not a host and a port, such as "sentinel:26379"`},
		{"sentinels without a master", RedisConfig{Address: "a:1", Sentinel: &SentinelConfig{PasswordEnv: "TEST_SENTINEL_PASSWORD"}},
			`redis.sentinel.master: it is missing; write the name that the sentinels know the master by, such as "mymaster"`},
		{"a master with another name", RedisConfig{Address: "a:1", Sentinel: &SentinelConfig{Master: "my master"}},
			`redis.sentinel.master: "my master" is not ` + nameRule},
		{"no sentinels", RedisConfig{Sentinel: &SentinelConfig{Master: "m"}},
			`redis.address: it is missing; write the sentinels, such as "sentinel-0:26379,sentinel-1:26379"`},
		{"two passwords of the sentinels", RedisConfig{Address: "a:1", Sentinel: &SentinelConfig{Master: "m", PasswordEnv: "A", PasswordFile: "b"}},
			"redis.sentinel: passwordEnv and passwordFile exclude each other; write one of them"},
		{"a user of the sentinels without a password", RedisConfig{Address: "a:1", Sentinel: &SentinelConfig{Master: "m", Username: "u"}},
			"redis.sentinel.username: a user needs a password; write passwordEnv or passwordFile too"},
		{"a key of the sentinels that there is not", RedisConfig{Address: "a:1", Sentinel: &SentinelConfig{
			Master: "m", Unknown: map[string]interface{}{"mastr": "m"},
		}}, `redis.sentinel.mastr: there is no such key; did you mean "master"?`},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			requireProblem(t, &Config{Redis: &row.config}, row.message)
		})
	}
}

// What is read again is what the files hold then. A file that cannot be read, or is wrong, changes nothing.
func TestRead_secretsThatChange(t *testing.T) {
	folder := t.TempDir()
	file := written(t, folder, "redis", "one")
	other := written(t, folder, "sentinel", "three")
	ca, _ := certificate(t)
	s := mustRead(t, &Config{Redis: &RedisConfig{
		Address: "a:1,b:1", PasswordFile: file, TLS: &TLSConfig{Enabled: "true", CA: ca},
		Sentinel: &SentinelConfig{Master: "m", PasswordFile: other},
	}})
	require.Equal(t, "one", s.redis.Password)
	require.Equal(t, s.redis.LoginVersion, s.redis.Reread().Version)

	written(t, folder, "redis", "two")
	login := s.redis.Reread()
	require.NotEqual(t, s.redis.LoginVersion, login.Version)
	require.Equal(t, "two", login.Password)
	require.Equal(t, "three", login.SentinelPassword)
	version := login.Version
	another, _ := certificate(t)
	content, err := os.ReadFile(another)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(ca, content, 0o600))
	login = s.redis.Reread()
	require.NotEqual(t, version, login.Version)
	require.False(t, login.TLS.RootCAs.Equal(s.redis.TLS.RootCAs))

	written(t, filepath.Dir(ca), "cert.pem", "garbage")
	require.True(t, s.redis.Reread() == nil)
	require.NoError(t, os.Remove(file))
	require.True(t, s.redis.Reread() == nil)

	require.True(t, mustRead(t, &Config{Redis: &RedisConfig{Address: "a:1", Password: "p"}}).redis.Reread == nil, "nothing is in a file")
}

func TestRead_onError(t *testing.T) {
	for _, value := range []string{"local", "allow", "deny"} {
		value := value
		t.Run(value, func(t *testing.T) {
			require.Equal(t, value, mustRead(t, &Config{Redis: &RedisConfig{OnError: value}}).onError)
		})
	}
}

func TestRead_password(t *testing.T) {
	folder := t.TempDir()
	require.NoError(t, os.Setenv("TEST_REDIS_PASSWORD", " from the environment "))
	require.NoError(t, os.Setenv("TEST_REDIS_LINES", "s3cret \r\n\n"))
	require.NoError(t, os.Unsetenv("TEST_REDIS_NOTHING"))

	const readable = "redis.password can be read in Traefik's API; prefer redis.passwordEnv or redis.passwordFile"
	const empty = "redis.username is set, but the password is empty"
	for _, row := range []struct {
		name     string
		config   RedisConfig
		want     string
		warnings []string
	}{
		{"none", RedisConfig{}, "", nil},
		{"written out", RedisConfig{Password: "s3cret"}, "s3cret", []string{readable}},
		{"in a variable", RedisConfig{PasswordEnv: "TEST_REDIS_PASSWORD"}, " from the environment ", nil},
		{"in a variable with a newline", RedisConfig{PasswordEnv: "TEST_REDIS_LINES"}, "s3cret ", nil},
		{"in a variable that is not set", RedisConfig{PasswordEnv: "TEST_REDIS_NOTHING"}, "", nil},
		{"in a file", RedisConfig{PasswordFile: written(t, folder, "plain", "s3cret")}, "s3cret", nil},
		{"in a file with a newline", RedisConfig{PasswordFile: written(t, folder, "newline", "s3cret \n")}, "s3cret ", nil},
		{"in a file from Windows", RedisConfig{PasswordFile: written(t, folder, "windows", "s3cret\r\n")}, "s3cret", nil},
		{"of a user", RedisConfig{Username: "gateway", PasswordEnv: "TEST_REDIS_PASSWORD"}, " from the environment ", nil},
		{"of a user, not set", RedisConfig{Username: "gateway", PasswordEnv: "TEST_REDIS_NOTHING"}, "", []string{empty}},
		{"of a user, in an empty file", RedisConfig{Username: "gateway", PasswordFile: written(t, folder, "empty", "\n")}, "",
			[]string{empty}},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			s := mustRead(t, &Config{Redis: &row.config})

			require.Equal(t, row.want, s.redis.Password)
			require.Equal(t, row.warnings, s.warnings)
		})
	}
}

func written(t *testing.T, folder, name, content string) string {
	path := filepath.Join(folder, name)
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func TestRead_tls(t *testing.T) {
	cert, key := certificate(t)
	s := mustRead(t, &Config{Redis: &RedisConfig{Address: "redis:6379", TLS: &TLSConfig{
		Enabled: "true", CA: cert, Cert: cert, Key: key, ServerName: "redis.internal", InsecureSkipVerify: "1",
	}}})

	require.Equal(t, uint16(tls.VersionTLS12), s.redis.TLS.MinVersion)
	require.Equal(t, "redis.internal", s.redis.TLS.ServerName)
	require.True(t, s.redis.TLS.InsecureSkipVerify)
	require.Len(t, s.redis.TLS.Certificates, 1)
	content, err := os.ReadFile(cert)
	require.NoError(t, err)
	authorities := x509.NewCertPool()
	authorities.AppendCertsFromPEM(content)
	require.True(t, s.redis.TLS.RootCAs.Equal(authorities))
	require.Len(t, s.warnings, 0)
}

func TestRead_tlsByDefault(t *testing.T) {
	s := mustRead(t, &Config{Redis: &RedisConfig{Address: "redis:6379", TLS: &TLSConfig{Enabled: "true"}}})

	require.Equal(t, "redis", s.redis.TLS.ServerName)
	require.False(t, s.redis.TLS.InsecureSkipVerify)
	require.True(t, s.redis.TLS.RootCAs == nil)
	require.Len(t, s.redis.TLS.Certificates, 0)
}

func TestRead_tlsThatIsOff(t *testing.T) {
	const plain = "redis.tls has settings, but is not enabled: the connection is a plain one; write enabled: true, or false"
	for _, row := range []struct {
		name     string
		config   TLSConfig
		warnings []string
	}{
		{"without settings", TLSConfig{}, nil},
		{"by its own word, files or not", TLSConfig{Enabled: "false", CA: "/nowhere/ca.pem"}, nil},
		{"by YAML's word", TLSConfig{Enabled: "0", ServerName: "redis"}, nil},
		{"by oversight", TLSConfig{CA: "/nowhere/ca.pem"}, []string{plain}},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			s := mustRead(t, &Config{Redis: &RedisConfig{Address: "redis:6379", TLS: &row.config}})

			require.True(t, s.redis.TLS == nil)
			require.Equal(t, row.warnings, s.warnings)
		})
	}
}

// certificate writes a certificate and its key and returns their files.
func certificate(t *testing.T) (cert, key string) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true}
	content, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	require.NoError(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	folder := t.TempDir()
	cert = written(t, folder, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: content})))
	key = written(t, folder, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})))
	return cert, key
}

func TestRead_distinguishesConnections(t *testing.T) {
	same := RedisConfig{Address: "redis:6379", Password: "a"}
	identity := func(config RedisConfig) string {
		return mustRead(t, &Config{Redis: &config}).connection
	}
	renewed := written(t, t.TempDir(), "ca.pem", "old")
	withCA := RedisConfig{Address: "redis:6379", Password: "a", TLS: &TLSConfig{Enabled: "false", CA: renewed}}
	before := identity(withCA)
	require.NoError(t, os.WriteFile(renewed, []byte("new"), 0o600))

	require.Equal(t, identity(same), identity(RedisConfig{Address: " redis:6379 ", Password: "a", DB: "0", OnError: "deny"}))
	for _, row := range []struct {
		name   string
		config RedisConfig
	}{
		{"address", RedisConfig{Address: "redis:6380", Password: "a"}},
		{"username", RedisConfig{Address: "redis:6379", Password: "a", Username: "b"}},
		{"password", RedisConfig{Address: "redis:6379", Password: "b"}},
		{"db", RedisConfig{Address: "redis:6379", Password: "a", DB: "1"}},
		{"timeout", RedisConfig{Address: "redis:6379", Password: "a", Timeout: "1s"}},
		{"dialTimeout", RedisConfig{Address: "redis:6379", Password: "a", DialTimeout: "2s"}},
		{"maxConnAge", RedisConfig{Address: "redis:6379", Password: "a", MaxConnAge: "1m"}},
		{"keyPrefix", RedisConfig{Address: "redis:6379", Password: "a", KeyPrefix: "b"}},
		{"cluster", RedisConfig{Address: "redis:6379", Password: "a", Cluster: "true"}},
		{"sentinel", RedisConfig{Address: "redis:6379", Password: "a", Sentinel: &SentinelConfig{Master: "m"}}},
		{"another master", RedisConfig{Address: "redis:6379", Password: "a", Sentinel: &SentinelConfig{Master: "n"}}},
		{"tls", RedisConfig{Address: "redis:6379", Password: "a", TLS: &TLSConfig{Enabled: "true"}}},
	} {
		require.NotEqual(t, identity(same), identity(row.config), row.name)
	}
	require.NotEqual(t, before, identity(withCA), "a renewed certificate")
}

func TestRead_maxConnAge(t *testing.T) {
	for text, want := range map[string]time.Duration{"": 5 * time.Minute, "0": 0, "0s": 0, "1s": time.Second, "1d": 24 * time.Hour} {
		require.Equal(t, want, mustRead(t, &Config{Redis: &RedisConfig{MaxConnAge: text}}).redis.MaxConnAge, text)
	}
}

func TestRead_reportsInvalidAddresses(t *testing.T) {
	const hidden = "this is not a host and a port (it is not shown, as a password may be in it)"
	const keys = "; user, password, database and TLS have keys of their own"
	const socket = `this is the name of a socket, and only TCP is supported; write a host and a port, such as "redis:6379"`
	for _, row := range []struct {
		address string
		message string
	}{
		{"redis", `"redis" is not a host and a port; write "redis:6379"`},
		{"cache.internal", `"cache.internal" is not a host and a port; write "cache.internal:6379"`},
		{"2001:db8::1", `"2001:db8::1" is not a host and a port; write "[2001:db8::1]:6379"`},
		{":6379", `":6379" is not a host and a port, such as "redis:6379"`},
		{"redis:", `"redis:" is not a host and a port; write "redis:6379"`},
		{"redis:0", `"redis:0" is not a host and a port, such as "redis:6379"`},
		{"redis:65536", `"redis:65536" is not a host and a port, such as "redis:6379"`},
		{"tcp://10.0.0.1:6380", `"tcp://10.0.0.1:6380" is not a host and a port; write "10.0.0.1:6380"` + keys},
		{"redis:port", hidden + `, such as "redis:6379"`},
		{"redis:6379/2", hidden + `; write "redis:6379"` + keys},
		{"s3cret@cache:6380", hidden + `; write "cache:6380"` + keys},
		{"redis://gateway:s3cret@cache:6380/2", hidden + `; write "cache:6380"` + keys},
		{"redis://:s3@cret@cache/2", hidden + `; write "cache:6379"` + keys},
		{"redis://cache:6380?password=s3cret", hidden + `; write "cache:6380"` + keys},
		{"cache:6380,password=s3cret", hidden + `; write "cache:6380"` + keys},
		{"redis://:s3cret", hidden + `, such as "redis:6379"` + keys},
		{"/var/run/redis.sock", socket},
		{"./redis.sock", socket},
		{"unix:///var/run/redis.sock", socket},
		{"unix://:s3cret@/var/run/redis.sock", socket},
		{"::1", `"::1" is not a host and a port; write "[::1]:6379"`},
		{"::1:6379", `"::1:6379" is not a host and a port; write "[::1]:6379"`},
		{"2001:db8::1:6379", `"2001:db8::1:6379" is not a host and a port; write "[2001:db8::1]:6379"`},
		{"2001:db8:1:2:3:4:5:6379", `"2001:db8:1:2:3:4:5:6379" is not a host and a port; write "[2001:db8:1:2:3:4:5:6379]:6379"`},
		{"[2001:db8::1]", `"[2001:db8::1]" is not a host and a port; write "[2001:db8::1]:6379"`},
		{"redis://[2001:db8::1]:6380", `"redis://[2001:db8::1]:6380" is not a host and a port; write "[2001:db8::1]:6380"` + keys},
	} {
		row := row
		t.Run(row.address, func(t *testing.T) {
			requireProblem(t, &Config{Redis: &RedisConfig{Address: row.address}}, "redis.address: "+row.message)
		})
	}
}

func TestRead_reportsInvalidRedisSettings(t *testing.T) {
	folder := t.TempDir()
	cert, key := certificate(t)
	garbage := written(t, folder, "garbage.pem", "garbage")
	for _, row := range []struct {
		name    string
		config  RedisConfig
		message string
	}{
		{"two passwords", RedisConfig{Password: "s3cret", PasswordEnv: "REDIS_PASSWORD"},
			"redis: password, passwordEnv and passwordFile exclude each other; write one of them"},
		{"a user without a password", RedisConfig{Username: "gateway"},
			"redis.username: a user needs a password; write passwordEnv or passwordFile too"},
		{"a password's file that there is not", RedisConfig{PasswordFile: "/nowhere/redis"},
			"redis.passwordFile: stat /nowhere/redis: no such file or directory; write the name of a file that Traefik can read"},
		{"a password's file that is a folder", RedisConfig{PasswordFile: folder},
			`redis.passwordFile: "` + folder + `" is not a regular file; write the name of one`},
		{"a prefix with a colon", RedisConfig{KeyPrefix: "shop:"},
			`redis.keyPrefix: "shop:" is not a name of letters, digits and . _ @ -, at most 64`},
		{"what decides while it is unavailable", RedisConfig{OnError: "open"},
			`redis.onError: "open" is not one of local, allow and deny`},
		{"TLS by another word", RedisConfig{TLS: &TLSConfig{Enabled: "no"}},
			`redis.tls.enabled: "no" is neither true nor false; write "true" or "false"`},
		{"no check of certificates by another word", RedisConfig{TLS: &TLSConfig{Enabled: "true", InsecureSkipVerify: "off"}},
			`redis.tls.insecureSkipVerify: "off" is neither true nor false; write "true" or "false"`},
		{"authorities' file that there is not", RedisConfig{TLS: &TLSConfig{Enabled: "true", CA: "/nowhere/ca.pem"}},
			"redis.tls.ca: stat /nowhere/ca.pem: no such file or directory; write the name of a file that Traefik can read"},
		{"authorities that are garbage", RedisConfig{TLS: &TLSConfig{Enabled: "true", CA: garbage}},
			`redis.tls.ca: "` + garbage + `" is not a file with certificates in PEM form`},
		{"certificate without a key", RedisConfig{TLS: &TLSConfig{Enabled: "true", Cert: cert}},
			"redis.tls: cert and key go together; write both or neither"},
		{"key without a certificate", RedisConfig{TLS: &TLSConfig{Enabled: "true", Key: key}},
			"redis.tls: cert and key go together; write both or neither"},
		{"certificate that is garbage", RedisConfig{TLS: &TLSConfig{Enabled: "true", Cert: garbage, Key: key}},
			`redis.tls: "` + garbage + `" and "` + key + `" are not a certificate and its key ` +
				`(tls: failed to find any PEM data in certificate input); write the names of two such files, in PEM form`},
		{"certificate's file that there is not", RedisConfig{TLS: &TLSConfig{Enabled: "true", Cert: "/nowhere/cert", Key: key}},
			"redis.tls.cert: stat /nowhere/cert: no such file or directory; write the name of a file that Traefik can read"},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			requireProblem(t, &Config{Redis: &row.config}, row.message)
		})
	}
}

func TestRead_showsNoPassword(t *testing.T) {
	require.NoError(t, os.Setenv("TEST_REDIS_SECRET", "s3cret"))
	for _, config := range []RedisConfig{
		{Address: "redis", Password: "s3cret"},
		{Address: "redis", PasswordEnv: "TEST_REDIS_SECRET", Username: "a b"},
		{Address: "redis", Password: "s3cret", PasswordEnv: "TEST_REDIS_SECRET"},
		{Address: "redis://:s3cret@redis:6379"},
	} {
		config := config
		s, err := readConfig(&Config{Redis: &config}, "gateway@file")

		require.NotNil(t, err)
		shown := err.Error() + strings.Join(s.warnings, "") + s.connection
		require.False(t, strings.Contains(shown, "s3cret"), shown)
	}
}
