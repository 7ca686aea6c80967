package e2e

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// commands are all that we send, and what a user needs on the keys below our prefix. docs/operations.md names them.
var commands = []string{
	"+evalsha", "+eval", "+time", "+get", "+set", "+del", "+hgetall", "+hset", "+hdel", "+pttl", "+pexpire",
	"+zadd", "+zrem", "+zscore", "+zcard", "+zrangebyscore", "+zremrangebyscore", "+select", "+script|load",
}

// bothReset is how long the circuit of both stays open: time enough for a request to find it so on a busy machine.
const bothReset = 500 * time.Millisecond

// both is a configuration that uses limiter and breaker.
func both(redis block) block {
	return block{
		"redis":          redis,
		"rateLimit":      block{"capacity": 20, "refillRate": 1, "refillPeriod": "1h"},
		"circuitBreaker": block{"failureThreshold": 3, "resetTimeout": bothReset.String(), "halfOpenSuccessThreshold": 1},
	}
}

// requireShared walks a gateway through all that needs Redis, and requires that Redis was asked.
func requireShared(t *testing.T, g *traefik, do func(command string, args ...any) any) {
	t.Helper()
	require.Equal(t, 200, g.get("/proxy/ok").status)
	for range 3 {
		require.Equal(t, 500, g.get("/proxy/fail").status)
	}
	require.Equal(t, 503, g.get("/proxy/ok").status)
	time.Sleep(bothReset + 50*time.Millisecond)
	require.Equal(t, 200, g.get("/proxy/ok").status)
	require.Equal(t, map[int]int{200: 15, 429: 5}, burst(20, "/proxy/ok", g))
	require.Equal(t, int64(2), do("EXISTS", "resilience:{gateway}:bucket:ip:127.0.0.1", breakerKey))
	require.Equal(t, "closed", string(do("HGET", breakerKey, "state").([]byte)))
	require.Empty(t, g.events("redis unavailable"), g.log.String())
}

func TestRedis_passwordAndDatabase(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--requirepass", "pa55 word")
	server.Login("", "pa55 word")
	g := startTraefik(t, options{
		upstream: startUpstream(t),
		plugin:   both(block{"address": server.Addr(), "timeout": patience, "dialTimeout": patience, "passwordEnv": "TEST_REDIS_PASSWORD", "db": 3}),
		env:      []string{"TEST_REDIS_PASSWORD=pa55 word"},
	})
	server.InDatabase(3)
	requireShared(t, g, server.Do)
	require.NotContains(t, g.log.String(), "pa55")
}

func TestRedis_aUserWithOnlyTheRightsWeUse(t *testing.T) {
	t.Parallel()
	args := append([]string{"--user", "gateway", "on", ">s3cret", "~resilience:*"}, commands...)
	server := redistest.Start(t, append(args, "--user", "default", "on", ">admin", "~*", "+@all")...)
	server.Login("", "admin")
	file := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(file, []byte("s3cret\n"), 0o600))
	g := startTraefik(t, options{
		upstream: startUpstream(t),
		plugin:   both(block{"address": server.Addr(), "timeout": patience, "dialTimeout": patience, "username": "gateway", "passwordFile": file}),
	})
	requireShared(t, g, server.Do)

	t.Run("and comes back from a loss", func(t *testing.T) {
		server.Kill()
		noticed := func() bool {
			require.Equal(t, 429, g.get("/proxy/ok").status)
			return len(g.events("redis unavailable")) == 1
		}
		require.Eventually(t, noticed, soon, 50*time.Millisecond, "that the bucket is empty is known for a second")
		server.Run()
		require.Eventually(t, func() bool { return len(g.events("redis is back")) == 1 }, soon, 10*time.Millisecond, g.log)
	})
}

func TestRedis_overTLS(t *testing.T) {
	t.Parallel()
	ca, cert, key := certificates(t)
	port := redistest.FreePort(t)
	redistest.Start(t, "--tls-port", port, "--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", ca,
		"--tls-auth-clients", "yes", "--requirepass", "s3cret")
	tls := block{"enabled": true, "ca": ca, "cert": cert, "key": key}
	plugin := both(block{"address": "127.0.0.1:" + port, "timeout": patience, "dialTimeout": patience, "passwordEnv": "TEST_REDIS_PASSWORD", "tls": tls})
	env := []string{"TEST_REDIS_PASSWORD=s3cret"}
	up := startUpstream(t)
	g := startTraefik(t, options{upstream: up, plugin: plugin, env: env})
	require.Equal(t, map[int]int{200: 20, 429: 5}, burst(25, "/proxy/ok", g, startTraefik(t, options{upstream: up, plugin: plugin, env: env})))
	require.Empty(t, g.events("redis unavailable"), g.log.String())

	delete(tls, "ca")
	wary := startTraefik(t, options{upstream: up, plugin: plugin, env: env})
	require.Equal(t, 200, wary.get("/proxy/ok").status, "limits by itself")
	require.Eventually(t, func() bool { return len(wary.events("redis unavailable")) == 1 }, soon, 10*time.Millisecond)
	require.Contains(t, wary.events("redis unavailable")[0]["reason"], "certificate")
}

// certificates writes an authority, and a certificate of its for 127.0.0.1 with its key.
func certificates(t *testing.T) (ca, cert, key string) {
	dir := t.TempDir()
	write := func(name, kind string, content []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content}), 0o600))
		return path
	}
	newKey := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		require.NoError(t, err)
		return k
	}
	authorityKey, serverKey := newKey(), newKey()
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	authorityBytes, err := x509.CreateCertificate(rand.Reader, authority, authority, &authorityKey.PublicKey, authorityKey)
	require.NoError(t, err)
	server := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "redis"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	serverBytes, err := x509.CreateCertificate(rand.Reader, server, authority, &serverKey.PublicKey, authorityKey)
	require.NoError(t, err)
	keyBytes, err := x509.MarshalECPrivateKey(serverKey)
	require.NoError(t, err)
	return write("ca.pem", "CERTIFICATE", authorityBytes), write("cert.pem", "CERTIFICATE", serverBytes), write("key.pem", "EC PRIVATE KEY", keyBytes)
}

func TestRedis_killedUnderTraffic(t *testing.T) {
	late := redistest.Late(t)
	server := redistest.Start(t)
	up := startUpstream(t)
	g := startTraefik(t, options{upstream: up, plugin: block{
		"redis":          redisBlock(server),
		"rateLimit":      block{"capacity": 30, "refillRate": 20, "refillPeriod": "1s"},
		"circuitBreaker": block{"failureThreshold": 5},
	}})
	var mu sync.Mutex
	counts := map[int]int{}
	slowest := time.Duration(0)
	stop := make(chan struct{})
	var done sync.WaitGroup
	begun := time.Now()
	for range 8 {
		done.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(4 * time.Millisecond):
				}
				sent := time.Now()
				status := g.get("/proxy/ok").status
				mu.Lock()
				counts[status]++
				slowest = max(slowest, time.Since(sent))
				mu.Unlock()
			}
		})
	}
	time.Sleep(time.Second)
	server.Kill()
	time.Sleep(2 * time.Second)
	server.Run()
	returned := time.Now()
	require.Eventually(t, func() bool { return len(g.events("redis is back")) == 1 }, soon, 5*time.Millisecond)
	require.Less(t, time.Since(returned), 2*time.Second+late())
	time.Sleep(500 * time.Millisecond)
	require.Equal(t, int64(1), server.Int("EXISTS", "resilience:{gateway}:bucket:ip:127.0.0.1"), "Redis is asked again, its scripts gone")
	close(stop)
	done.Wait()

	took := time.Since(begun).Seconds()
	require.Len(t, counts, 2, "no 5xx, no failed request: %v", counts)
	require.Positive(t, counts[429])
	// One bucket more: Redis came back empty.
	require.LessOrEqual(t, float64(counts[200]), 30+20*took+30, "limiting goes on")
	require.GreaterOrEqual(t, counts[200], int(20*took)-10)
	require.Less(t, slowest, 500*time.Millisecond+late())
	require.Len(t, g.events("redis unavailable"), 1)
	t.Logf("%.1f s: %v, slowest %s", took, counts, slowest)
}

func TestRedis_isNeverSentATime(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	g := startTraefik(t, options{upstream: startUpstream(t), plugin: both(redisBlock(server))})

	c, err := net.Dial("tcp", server.Addr())
	require.NoError(t, err)
	defer c.Close()
	_, err = c.Write([]byte("MONITOR\r\n"))
	require.NoError(t, err)
	heard := make(chan []string)
	go func() {
		var all []string
		reader := bufio.NewScanner(c)
		reader.Buffer(nil, 1<<20)
		for reader.Scan() {
			all = append(all, reader.Text())
		}
		heard <- all
	}()
	requireShared(t, g, server.Do)
	leasing := startTraefik(t, options{upstream: startUpstream(t), plugin: block{
		"name": "leasing", "redis": redisBlock(server), "rateLimit": block{"capacity": 10000, "refillRate": 10000},
	}})
	for range 40 {
		burst(10, "/proxy/ok", leasing)
	}
	time.Sleep(100 * time.Millisecond)
	c.(*net.TCPConn).CloseRead()

	// Generations and the numbers of leases are times of Redis's own that it is told again; every other argument of ours
	// is a length.
	generations, leases := map[string]bool{}, map[string]bool{}
	lease := regexp.MustCompile(` (\d+):\d+`)
	evals, ended := 0, 0
	argument := regexp.MustCompile(`"((?:[^"\\]|\\.)*)"`)
	for _, line := range <-heard {
		fields := argument.FindAllStringSubmatch(line, -1)
		if len(fields) == 0 {
			continue
		}
		if strings.Contains(line, " lua] ") {
			for i := range fields {
				if fields[i][1] == "generation" {
					generations[fields[i+1][1]] = true
				}
				for _, number := range lease.FindAllStringSubmatch(fields[i][1], -1) {
					leases[number[1]] = true
				}
			}
			continue
		}
		if name := strings.ToUpper(fields[0][1]); name != "EVALSHA" && name != "EVAL" {
			continue
		}
		evals++
		for _, field := range fields[2:] {
			for _, word := range strings.Fields(field[1]) {
				n, err := strconv.ParseFloat(word, 64)
				if err != nil || n <= 1e9 || generations[word] {
					continue
				}
				if leases[word] {
					ended++
					continue
				}
				// No length is so long but the hour of the refill, and the longest registration of a gateway.
				require.Contains(t, []string{"3600000000", "1224000000"}, word, line)
			}
		}
	}
	require.Greater(t, evals, 10)
	require.NotEmpty(t, generations)
	require.Positive(t, ended, "leases that were ended")
}
