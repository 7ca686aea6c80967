package resilience

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/resilient-gateway/resilience/identity"
	"github.com/resilient-gateway/resilience/internal/store"
)

func readRedis(r *problems, s *settings, c *RedisConfig) {
	r.unknown("redis.", c.Unknown, "address", "sentinel", "cluster", "username", "password", "passwordEnv", "passwordFile", "db", "tls",
		"timeout", "dialTimeout", "maxConnAge", "keyPrefix", "onError")
	s.redis = store.Settings{
		Cluster:     r.flag("redis.cluster", c.Cluster),
		Username:    c.Username,
		DB:          int(r.count("redis.db", c.DB, 0, 1000000, 0)),
		Timeout:     r.duration("redis.timeout", c.Timeout, time.Microsecond, 100*time.Millisecond),
		DialTimeout: r.duration("redis.dialTimeout", c.DialTimeout, time.Microsecond, time.Second),
		MaxConnAge:  r.durationOrNever("redis.maxConnAge", c.MaxConnAge, time.Second, 5*time.Minute),
		KeyPrefix:   c.KeyPrefix,
	}
	readTopology(r, s, c)
	readLogin(r, s, c)
	if s.redis.KeyPrefix == "" {
		s.redis.KeyPrefix = "resilience"
	}
	if !isName(s.redis.KeyPrefix) {
		r.invalid("redis.keyPrefix", s.redis.KeyPrefix, nameRule)
	}
	if c.OnError != "" {
		s.onError = c.OnError
	}
	if s.onError != onErrorLocal && s.onError != onErrorAllow && s.onError != onErrorDeny {
		r.invalid("redis.onError", s.onError, "one of local, allow and deny")
	}
	all := fmt.Sprintf("%q %q %q %d %s %s %s %q", s.redis.Address, c.Username, s.redis.LoginVersion, s.redis.DB,
		s.redis.Timeout, s.redis.DialTimeout, s.redis.MaxConnAge, s.redis.KeyPrefix)
	if s.redis.Sentinel != nil {
		all += fmt.Sprintf(" sentinel %q %q", s.redis.Sentinel.Master, s.redis.Sentinel.Username)
	}
	if s.redis.Cluster {
		all += fmt.Sprintf(" cluster %q", s.name) // each name has the node that serves its slot
	}
	s.connection = identity.Hash(all)
	if s.redis.Address != "" {
		s.parts = append(s.parts, fmt.Sprintf("redis %s, db %d, on error: %s", s.redisName, s.redis.DB, s.onError))
	}
}

// readTopology reads where Redis is: at one address, where sentinels say, or at the nodes of a cluster.
func readTopology(r *problems, s *settings, c *RedisConfig) {
	s.redis.Address = strings.TrimSpace(c.Address)
	s.redisName = s.redis.Address
	hasSentinel := usesSentinel(c.Sentinel)
	if hasSentinel && s.redis.Cluster {
		r.add("redis: sentinel and cluster exclude each other; write one of them")
		return
	}
	if !hasSentinel && !s.redis.Cluster {
		readOneAddress(r, s.redis.Address)
		return
	}
	addresses := splitAddresses(s.redis.Address)
	example := redisExample
	if hasSentinel {
		example = sentinelExample
	}
	for _, address := range addresses {
		r.address("redis.address", address, example)
	}
	s.redis.Address = strings.Join(addresses, ",")
	shown := strings.Join(addresses, ", ")
	if hasSentinel {
		readSentinel(r, s, c.Sentinel, len(addresses))
		s.redisName = fmt.Sprintf("%s of the sentinels %s", c.Sentinel.Master, shown)
		return
	}
	s.redisName = "cluster " + shown
	s.redis.HashTag = "{" + s.name + "}"
	if len(addresses) == 0 {
		r.add("redis.address: it is missing; write some nodes of the cluster, such as \"redis-0:6379,redis-1:6379\"")
	}
	if s.redis.DB != 0 {
		r.add(fmt.Sprintf("redis.db: a Redis Cluster has only database 0, not %d; leave db out", s.redis.DB))
	}
}

// readOneAddress checks the address where nothing says that it is a list.
func readOneAddress(r *problems, text string) {
	addresses := splitAddresses(text)
	if len(addresses) > 1 && areServers(addresses) {
		r.add(fmt.Sprintf("redis.address: %d addresses, but nothing says what they are; write redis.sentinel.master, the name of a master, "+
			`if they are sentinels, or redis.cluster: "true" if they are nodes of a Redis Cluster`, len(addresses)))
		if !areAddresses(addresses) {
			r.extend("each of them needs a port")
		}
	} else if text != "" {
		r.address("redis.address", text, redisExample)
	}
}

// usesSentinel reports whether anything is set in the block. A file with variables, or labels, cannot leave the block out, only empty.
func usesSentinel(c *SentinelConfig) bool {
	return c != nil && (c.Master+c.Username+c.PasswordEnv+c.PasswordFile != "" || len(c.Unknown) > 0)
}

func readSentinel(r *problems, s *settings, c *SentinelConfig, addresses int) {
	r.unknown("redis.sentinel.", c.Unknown, "master", "username", "passwordEnv", "passwordFile")
	s.redis.Sentinel = &store.SentinelSettings{Master: c.Master, Username: c.Username}
	if addresses == 0 {
		r.add("redis.address: it is missing; write the sentinels, such as \"sentinel-0:26379,sentinel-1:26379\"")
	}
	if c.Master == "" {
		r.add("redis.sentinel.master: it is missing; write the name that the sentinels know the master by, such as \"mymaster\"")
	} else if !isName(c.Master) {
		r.invalid("redis.sentinel.master", c.Master, nameRule)
	}
}

// splitAddresses returns the addresses of a list with commas, each once.
func splitAddresses(text string) []string {
	var addresses []string
	seen := map[string]bool{}
	for _, address := range strings.Split(text, ",") {
		address = strings.TrimSpace(address)
		if address != "" && !seen[address] {
			seen[address] = true
			addresses = append(addresses, address)
		}
	}
	return addresses
}

// areServers reports whether all are addresses, or hosts without a port.
func areServers(addresses []string) bool {
	for _, address := range addresses {
		if !isAddress(address) && !isHost(address) {
			return false
		}
	}
	return true
}

func areAddresses(addresses []string) bool {
	for _, address := range addresses {
		if !isAddress(address) {
			return false
		}
	}
	return true
}

// readLogin reads passwords and certificates. If any of them is in a file, the store may read them again.
func readLogin(r *problems, s *settings, c *RedisConfig) {
	login := loginOf(r, s, c)
	s.redis.Password, s.redis.TLS, s.redis.LoginVersion = login.Password, login.TLS, login.Version
	inFiles := c.PasswordFile != "" || c.TLS != nil && c.TLS.CA+c.TLS.Cert+c.TLS.Key != ""
	if c.Sentinel != nil {
		inFiles = inFiles || c.Sentinel.PasswordFile != ""
		if s.redis.Sentinel != nil {
			s.redis.Sentinel.Password = login.SentinelPassword
		}
	}
	if inFiles {
		s.redis.Reread = rereader(s.redis, c)
	}
}

// rereader returns a function that reads passwords and certificates again. It returns nil if something is wrong with them.
func rereader(redis store.Settings, c *RedisConfig) func() *store.Login {
	return func() *store.Login {
		r := &problems{}
		login := loginOf(r, &settings{redis: redis}, c)
		if r.err() != nil {
			return nil
		}
		return login
	}
}

// loginOf reads what servers must be shown.
func loginOf(r *problems, s *settings, c *RedisConfig) *store.Login {
	login := &store.Login{Password: readPassword(r, s, "redis", c.Username, c.Password, c.PasswordEnv, c.PasswordFile)}
	if c.Sentinel != nil {
		login.SentinelPassword = readPassword(r, s, "redis.sentinel", c.Sentinel.Username, "", c.Sentinel.PasswordEnv, c.Sentinel.PasswordFile)
	}
	version := fmt.Sprintf("%q %q", login.Password, login.SentinelPassword)
	if c.TLS != nil {
		login.TLS = readTLS(r, s, c.TLS)
		version += tlsIdentity(c.TLS)
	}
	login.Version = identity.Hash(version)
	return login
}

// tlsIdentity identifies certificates by the present content of their files, so that a reload uses renewed ones.
func tlsIdentity(c *TLSConfig) string {
	text := fmt.Sprintf(" %q %q %q", c.Enabled, c.ServerName, c.InsecureSkipVerify)
	for _, file := range []string{c.CA, c.Cert, c.Key} {
		if file != "" {
			content, _ := readFile(file)
			text += fmt.Sprintf(" %q", content)
		}
	}
	return text
}

// readPassword reads one password of the block at path.
func readPassword(r *problems, s *settings, path, username, plain, variable, file string) string {
	given := 0
	for _, text := range []string{plain, variable, file} {
		if text != "" {
			given++
		}
	}
	keys := "password, passwordEnv and passwordFile"
	if path != "redis" {
		keys = "passwordEnv and passwordFile"
	}
	if given > 1 {
		r.add(path + ": " + keys + " exclude each other; write one of them")
		return ""
	}
	if plain != "" {
		s.warnings = append(s.warnings, "redis.password can be read in Traefik's API; prefer redis.passwordEnv or redis.passwordFile")
	}
	password := plain
	if variable != "" {
		password = r.variable(path+".passwordEnv", variable)
	}
	if file != "" {
		password = strings.TrimRight(string(r.content(path+".passwordFile", file)), "\r\n")
	}
	if username != "" && password == "" && given > 0 {
		s.warnings = append(s.warnings, path+".username is set, but the password is empty")
	}
	if username != "" && given == 0 {
		r.add(path + ".username: a user needs a password; write passwordEnv or passwordFile too")
	}
	return password
}

func readTLS(r *problems, s *settings, c *TLSConfig) *tls.Config {
	const path = "redis.tls"
	r.unknown(path+".", c.Unknown, "enabled", "ca", "cert", "key", "serverName", "insecureSkipVerify")
	enabled := r.flag(path+".enabled", c.Enabled)
	config := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         c.ServerName,
		InsecureSkipVerify: r.flag(path+".insecureSkipVerify", c.InsecureSkipVerify),
	}
	if config.ServerName == "" && s.redis.Sentinel == nil && !s.redis.Cluster {
		config.ServerName, _, _ = net.SplitHostPort(s.redis.Address)
	}
	if (c.Cert == "") != (c.Key == "") {
		r.add(path + ": cert and key go together; write both or neither")
	}
	if !enabled {
		if c.Enabled == "" && c.CA+c.Cert+c.Key+c.ServerName+c.InsecureSkipVerify != "" {
			s.warnings = append(s.warnings, "redis.tls has settings, but is not enabled: the connection is a plain one; write enabled: true, or false")
		}
		return nil
	}
	if c.CA != "" {
		config.RootCAs = x509.NewCertPool()
		content := r.content(path+".ca", c.CA)
		if content != nil && !config.RootCAs.AppendCertsFromPEM(content) {
			r.invalid(path+".ca", c.CA, "a file with certificates in PEM form")
		}
	}
	if c.Cert != "" && c.Key != "" {
		config.Certificates = []tls.Certificate{r.pair(path, c.Cert, c.Key)}
	}
	return config
}
