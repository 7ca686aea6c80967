package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	frames "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	rpcstats "google.golang.org/grpc/stats"
)

// The refusals of gRPC calls: each of these hosts routes to the gRPC service through a middleware that refuses, and /<host> to the
// upstream through the same middleware.
var refusingHosts = []struct {
	host, text string
	code       codes.Code
	retryAfter string
}{
	{"limited", "Too many requests, please try again later.", codes.ResourceExhausted, "3"}, // an hour is 3600 at first, and less after a while
	{"broken", "Service temporarily unavailable due to circuit open.", codes.Unavailable, "3"},
	{"denied", "Service temporarily unavailable, please try again later.", codes.Unavailable, "1"},
}

// startRefusing starts a gateway whose middlewares refuse, in front of a gRPC service.
func startRefusing(t *testing.T) *traefik {
	t.Helper()
	server := startRPC(t)
	folder := writeRows(t, map[string]block{
		"limited": {"rateLimit": block{"capacity": 1, "refillRate": 1, "refillPeriod": "1h"}},
		"broken":  {"circuitBreaker": block{"failureThreshold": 1, "resetTimeout": "1h"}},
		"denied":  {"rateLimit": block{"capacity": 1}, "redis": block{"address": freeAddress(t), "onError": "deny"}},
		"second":  {"rateLimit": block{"capacity": 1, "refillRate": 1, "refillPeriod": "500ms"}},
		"brief":   {"circuitBreaker": block{"failureThreshold": 1, "resetTimeout": "500ms", "halfOpenSuccessThreshold": 1}},
	})
	routers := block{}
	for _, host := range []string{"limited", "broken", "denied", "second", "brief"} {
		routers["rpc-"+host] = block{
			"rule": "Host(`" + host + "`) && PathPrefix(`/test.Echo/`)", "entryPoints": []string{"web"}, "middlewares": []string{host}, "service": "rpc",
		}
	}
	routers["rpc-web"] = block{
		"rule": "Host(`web`) && PathPrefix(`/test.Echo/`)", "entryPoints": []string{"web"}, "middlewares": []string{"grpc-web", "limited"}, "service": "rpc",
	}
	routers["rpc-plain"] = block{
		"rule": "Host(`plain`) && PathPrefix(`/test.Echo/`)", "entryPoints": []string{"web"}, "service": "rpc",
	}
	writeYAML(t, filepath.Join(folder, "rpc.yml"), block{"http": block{
		"routers":     routers,
		"middlewares": block{"grpc-web": block{"grpcWeb": block{"allowOrigins": []string{"*"}}}},
		"services":    block{"rpc": block{"loadBalancer": block{"servers": []block{{"url": "h2c://" + server.address}}}}},
	}})
	g := startTraefik(t, options{upstream: startUpstream(t), dynamic: folder})
	plain := dialHost(t, g, "plain")
	require.Eventually(t, func() bool { return call(t.Context(), plain, "Count", false).code == codes.OK }, soon, 20*time.Millisecond)
	require.Equal(t, 200, g.get("/limited").status)
	require.Equal(t, 500, g.get("/broken/fail").status)
	return g
}

// dialHost returns a client that asks for a host.
func dialHost(t *testing.T, g *traefik, host string, more ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	c, err := grpc.NewClient("passthrough:///"+g.web, append(more, grpc.WithAuthority(host),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodec(bytesCodec{})))...)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// attempts counts those of all calls of a client.
type attempts struct{ atomic.Int64 }

func (a *attempts) TagRPC(ctx context.Context, _ *rpcstats.RPCTagInfo) context.Context   { return ctx }
func (a *attempts) TagConn(ctx context.Context, _ *rpcstats.ConnTagInfo) context.Context { return ctx }
func (a *attempts) HandleConn(context.Context, rpcstats.ConnStats)                       {}
func (a *attempts) HandleRPC(_ context.Context, s rpcstats.RPCStats) {
	if _, sent := s.(*rpcstats.OutHeader); sent {
		a.Add(1)
	}
}

// retryPolicy has a client repeat what is refused up to three times, a quarter of a second apart.
const retryPolicy = `{"methodConfig": [{"name": [{"service": "test.Echo"}], "retryPolicy": {
	"maxAttempts": 4, "initialBackoff": "0.3s", "maxBackoff": "0.3s", "backoffMultiplier": 1,
	"retryableStatusCodes": ["RESOURCE_EXHAUSTED", "UNAVAILABLE"]}}]}`

func TestGRPC_refusalsAreUnderstood(t *testing.T) {
	t.Parallel()
	g := startRefusing(t)
	for _, row := range refusingHosts {
		t.Run(row.host+", by grpc-go", func(t *testing.T) {
			c := dialHost(t, g, row.host)
			for range 3 { // the first refusals are another function's than those that follow
				heard := call(t.Context(), c, "Echo", true, "a")
				require.Equal(t, row.code, heard.code)
				require.Equal(t, row.text, heard.text)
				require.Empty(t, heard.messages)
				requireMetadata(t, heard.trailer, row.retryAfter)
			}
		})
		t.Run(row.host+", by grpc-go without a message", func(t *testing.T) {
			heard := call(t.Context(), dialHost(t, g, row.host), "Count", false)
			require.Equal(t, row.code, heard.code)
			require.Equal(t, row.text, heard.text)
		})
		t.Run(row.host+", by grpc-go that retries", func(t *testing.T) {
			sent := &attempts{}
			c := dialHost(t, g, row.host, grpc.WithDefaultServiceConfig(retryPolicy), grpc.WithStatsHandler(sent))
			begun := time.Now()
			heard := call(t.Context(), c, "Count", false, "a")
			require.Equal(t, row.code, heard.code)
			require.Equal(t, "max retries exhausted: failed after 4 attempts: rpc error: code = "+row.code.String()+" desc = "+row.text, heard.text)
			require.EqualValues(t, 4, sent.Load(), "as its own policy says")
			require.Greater(t, time.Since(begun), 3*200*time.Millisecond)
		})
		t.Run(row.host+", by grpcurl", func(t *testing.T) {
			said, code := grpcurl(t, g, row.host)
			require.Equal(t, 64+int(row.code), code, said)
			require.Contains(t, said, "Code: "+row.code.String()+"\n")
			require.Contains(t, said, "Message: "+row.text+"\n")
			require.Contains(t, said, "retry-after: "+row.retryAfter)
		})
		t.Run(row.host+", on the wire", func(t *testing.T) {
			fields := requireTrailersOnly(t, g, row.host)
			require.Equal(t, "200", fields[":status"])
			require.Equal(t, "application/grpc", fields["content-type"])
			require.Equal(t, fmt.Sprint(uint32(row.code)), fields["grpc-status"])
			require.Equal(t, row.text, fields["grpc-message"])
			require.True(t, strings.HasPrefix(fields["retry-after"], row.retryAfter), fields["retry-after"])
		})
		t.Run(row.host+", asked by gRPC-Web", func(t *testing.T) {
			r := postAs(t, g, row.host, "application/grpc-web+proto")
			require.Contains(t, []int{http.StatusTooManyRequests, http.StatusServiceUnavailable}, r.status)
			require.Equal(t, "application/json", r.header.Get("Content-Type"))
			require.NotEmpty(t, r.header.Get("Retry-After"))
		})
	}
	t.Run("asked by gRPC-Web, which Traefik translates", func(t *testing.T) {
		r := postAs(t, g, "web", "application/grpc-web+proto")
		require.Equal(t, http.StatusOK, r.status)
		require.Equal(t, "8", r.header.Get("Grpc-Status"))
		require.Equal(t, "application/grpc-web", r.header.Get("Content-Type"))
	})
	t.Run("grpcurl is served where nothing refuses", func(t *testing.T) {
		said, code := grpcurl(t, g, "plain")
		require.Zero(t, code, said)
		require.Contains(t, said, `"text": "a"`)
	})
}

// A client with a retry policy hides a refusal that ends in time.
func TestGRPC_retriesSucceedWhenTheRefusalEnds(t *testing.T) {
	t.Parallel()
	g := startRefusing(t)
	for _, row := range []struct {
		host   string
		refuse func()
	}{
		{"second", func() { g.get("/second") }},    // the bucket is empty then
		{"brief", func() { g.get("/brief/fail") }}, // the circuit is open then
	} {
		t.Run(row.host, func(t *testing.T) {
			sent := &attempts{}
			c := dialHost(t, g, row.host, grpc.WithDefaultServiceConfig(retryPolicy), grpc.WithStatsHandler(sent))
			require.Eventually(t, func() bool { return call(t.Context(), c, "Count", false, "a").code == codes.OK }, soon, time.Second, "the connection")
			repeated := false
			for begun := time.Now(); !repeated && time.Since(begun) < soon; { // a busy machine may need longer than a refusal lasts
				row.refuse()
				before := sent.Load()
				heard := call(t.Context(), c, "Count", false, "a")
				require.Equal(t, codes.OK, heard.code, heard.text)
				require.Equal(t, []string{"1 1"}, heard.messages)
				repeated = sent.Load()-before > 1
			}
			require.True(t, repeated)
		})
	}
}

func requireMetadata(t *testing.T, trailer metadata.MD, retryAfter string) {
	t.Helper()
	require.Len(t, trailer.Get("retry-after"), 1)
	require.True(t, strings.HasPrefix(trailer.Get("retry-after")[0], retryAfter), "%s", trailer)
	require.Empty(t, trailer.Get("grpc-retry-pushback-ms"), "when to repeat a call is the client's decision")
}

// postAs sends a message of gRPC-Web over HTTP/1.
func postAs(t *testing.T, g *traefik, host, contentType string) reply {
	t.Helper()
	request, err := http.NewRequest(http.MethodPost, g.url("/test.Echo/Echo"), bytes.NewReader([]byte("\x00\x00\x00\x00\x00")))
	require.NoError(t, err)
	request.Host = host
	request.Header.Set("Content-Type", contentType)
	r := send(request)
	require.NoError(t, r.err)
	return r
}

// grpcurl calls the service as an operator would by hand, and returns what it prints and its exit code.
func grpcurl(t *testing.T, g *traefik, host string) (string, int) {
	t.Helper()
	command := exec.Command(filepath.Join(root(t), "dist", "bin", "grpcurl"), "-v", "-plaintext", "-authority", host,
		"-import-path", "testdata", "-proto", "echo.proto", "-d", `{"text": "a"}`, g.web, "test.Echo/Echo")
	out, err := command.CombinedOutput()
	if err != nil {
		require.ErrorAs(t, err, new(*exec.ExitError), "make grpcurl builds it")
	}
	return string(out), command.ProcessState.ExitCode()
}

// requireTrailersOnly sends the head of a call, and requires that one HEADERS frame is the whole answer. It returns its fields.
func requireTrailersOnly(t *testing.T, g *traefik, host string) map[string]string {
	t.Helper()
	c, err := net.Dial("tcp", g.web)
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.SetDeadline(time.Now().Add(soon)))
	_, err = c.Write([]byte(frames.ClientPreface))
	require.NoError(t, err)
	framer := frames.NewFramer(c, c)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	require.NoError(t, framer.WriteSettings())
	var head bytes.Buffer
	encoder := hpack.NewEncoder(&head)
	for _, field := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", "/test.Echo/Echo"}, {":authority", host},
		{"content-type", "application/grpc"}, {"te", "trailers"},
	} {
		require.NoError(t, encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}))
	}
	require.NoError(t, framer.WriteHeaders(frames.HeadersFrameParam{StreamID: 1, BlockFragment: head.Bytes(), EndHeaders: true}))
	for {
		frame, err := framer.ReadFrame()
		require.NoError(t, err)
		if answer, ok := frame.(*frames.MetaHeadersFrame); ok {
			require.True(t, answer.StreamEnded(), "it ends the stream")
			fields := map[string]string{}
			for _, field := range answer.Fields {
				fields[field.Name] = field.Value
			}
			return fields
		}
		require.NotEqual(t, frames.FrameData, frame.Header().Type)
	}
}
