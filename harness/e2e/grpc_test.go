package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// bytesCodec sends messages as they are, so that the service needs no generated code.
type bytesCodec struct{}

func (bytesCodec) Name() string                  { return "bytes" }
func (bytesCodec) Marshal(v any) ([]byte, error) { return []byte(*v.(*string)), nil }
func (bytesCodec) Unmarshal(data []byte, v any) error {
	*v.(*string) = string(data)
	return nil
}

// rpcServer is a gRPC service without TLS. It records each call whose client disconnected, and whether it had a deadline.
type rpcServer struct {
	address string
	server  *grpc.Server
	waiting chan bool // a call of Wait has come
	ended   chan bool
}

func startRPC(t *testing.T) *rpcServer {
	t.Helper()
	listener, err := net.Listen("tcp", freeAddress(t))
	require.NoError(t, err)
	s := &rpcServer{
		address: listener.Addr().String(), server: grpc.NewServer(grpc.ForceServerCodec(bytesCodec{})), waiting: make(chan bool, 16), ended: make(chan bool, 16),
	}
	stream := func(name string, serve func(grpc.ServerStream) error) grpc.StreamDesc {
		return grpc.StreamDesc{StreamName: name, ServerStreams: true, ClientStreams: true, Handler: func(_ any, stream grpc.ServerStream) error {
			stream.SetHeader(metadata.Pairs("x-header", "a", "x-header-bin", "\x00\xff"))
			stream.SetTrailer(metadata.Pairs("x-trailer", "z", "x-trailer-bin", "\x00\xff"))
			return serve(stream)
		}}
	}
	s.server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "test.Echo", HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{
			stream("Echo", echoEach), stream("Count", count), stream("List", list), stream("Fail", fail), stream("FailLate", failLate), stream("Wait", s.wait),
		},
	}, nil)
	go s.server.Serve(listener)
	t.Cleanup(s.server.Stop)
	return s
}

// echoEach sends each message back when it comes.
func echoEach(stream grpc.ServerStream) error {
	for {
		var message string
		if err := stream.RecvMsg(&message); err != nil {
			return ignoreEOF(err)
		}
		if err := stream.SendMsg(&message); err != nil {
			return err
		}
	}
}

// count answers with the number of messages, and of bytes, once there are no more.
func count(stream grpc.ServerStream) error {
	messages, bytes := 0, 0
	for {
		var message string
		if err := stream.RecvMsg(&message); err == io.EOF {
			break
		} else if err != nil {
			return err
		}
		messages++
		bytes += len(message)
	}
	sum := fmt.Sprint(messages, " ", bytes)
	return stream.SendMsg(&sum)
}

// list answers one message with twenty.
func list(stream grpc.ServerStream) error {
	var message string
	if err := stream.RecvMsg(&message); err != nil {
		return err
	}
	for i := range 20 {
		answer := fmt.Sprint(message, i)
		if err := stream.SendMsg(&answer); err != nil {
			return err
		}
	}
	return nil
}

func fail(grpc.ServerStream) error { return status.Error(codes.Unavailable, "closed for lunch: ü%") }

// failLate sends a message before it fails, so that the code comes with the trailers.
func failLate(stream grpc.ServerStream) error {
	message := "first course"
	if err := stream.SendMsg(&message); err != nil {
		return err
	}
	return fail(stream)
}

// wait waits until the client is gone.
func (s *rpcServer) wait(stream grpc.ServerStream) error {
	_, limited := stream.Context().Deadline()
	s.waiting <- true
	<-stream.Context().Done()
	s.ended <- limited
	return stream.Context().Err()
}

func ignoreEOF(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}

// rpcHeard is all that a client hears of a call.
type rpcHeard struct {
	messages        []string
	header, trailer metadata.MD
	code            codes.Code
	text            string
}

// call sends the messages, in step waiting for an answer to each, and hears what comes.
func call(ctx context.Context, c *grpc.ClientConn, method string, inStep bool, messages ...string) (heard rpcHeard) {
	stream, err := c.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/test.Echo/"+method)
	defer func() {
		heard.code, heard.text = status.Code(err), status.Convert(err).Message()
	}()
	if err != nil {
		return heard
	}
	receive := func() {
		var answer string
		if err = stream.RecvMsg(&answer); err == nil {
			heard.messages = append(heard.messages, answer)
		}
	}
	for _, message := range messages {
		if stream.SendMsg(&message) != nil {
			break // what is wrong comes with the answer
		}
		if inStep {
			receive()
		}
	}
	stream.CloseSend()
	for err == nil {
		receive()
	}
	err = ignoreEOF(err)
	heard.header, _ = stream.Header()
	heard.trailer = stream.Trailer()
	delete(heard.header, "date")
	delete(heard.trailer, "date")
	return heard
}

func dialRPC(t *testing.T, address string) *grpc.ClientConn {
	t.Helper()
	c, err := grpc.NewClient("passthrough:///"+address, grpc.WithAuthority("shop.example"),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodec(bytesCodec{})))
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// routeRPC routes the service behind both entry points.
func (p *pair) routeRPC(t *testing.T, s *rpcServer) {
	t.Helper()
	route := func(entryPoint string, middlewares ...string) block {
		return block{
			"rule": "PathPrefix(`/test.Echo/`)", "entryPoints": []string{entryPoint}, "middlewares": middlewares, "service": "rpc",
		}
	}
	writeYAML(t, filepath.Join(p.dynamic, "rpc.yml"), block{"http": block{
		"routers":  block{"rpc": route("web", "gateway"), "rpc-plain": route("plain")},
		"services": block{"rpc": block{"loadBalancer": block{"servers": []block{{"url": "h2c://" + s.address}}}}},
	}})
	for _, address := range []string{p.web, p.plain} {
		c := dialRPC(t, address)
		require.Eventually(t, func() bool {
			return call(t.Context(), c, "Count", false).code == codes.OK
		}, 5*time.Second, 20*time.Millisecond, "the route")
	}
}

func TestTransparency_gRPCIsTheSame(t *testing.T) {
	t.Parallel()
	eachSource(t, func(t *testing.T, p *pair) {
		server := startRPC(t)
		p.routeRPC(t, server)
		plain, web := dialRPC(t, p.plain), dialRPC(t, p.web)
		large := strings.Repeat("large", 600000)

		for _, row := range []struct {
			name, method string
			inStep       bool
			messages     []string
			answers      int
			code         codes.Code
			verdict      verdict
		}{
			{"one message for one", "Count", false, []string{"a"}, 1, codes.OK, succeeded},
			{"a large one", "Echo", true, []string{large}, 1, codes.OK, succeeded},
			{"many for one", "Count", false, strings.Split(strings.Repeat("a", 100), ""), 1, codes.OK, succeeded},
			{"one for many", "List", false, []string{"a"}, 20, codes.OK, succeeded},
			{"both streams, in step", "Echo", true, []string{"a", "b", "", "d"}, 4, codes.OK, succeeded},
			{"no message at all", "Echo", false, nil, 0, codes.OK, succeeded},
			{"an error of the service, which is in the trailer of a 200", "Fail", false, nil, 0, codes.Unavailable, succeeded},
			{"a method that there is not", "Nothing", false, nil, 0, codes.Unimplemented, succeeded},
		} {
			t.Run(row.name, func(t *testing.T) {
				want := call(t.Context(), plain, row.method, row.inStep, row.messages...)
				require.Equal(t, row.code, want.code, want.text)
				require.Len(t, want.messages, row.answers)
				p.makeHealthy(t)
				require.Equal(t, want, call(t.Context(), web, row.method, row.inStep, row.messages...))
				p.judge(t, row.verdict, func() {
					require.Equal(t, want, call(t.Context(), web, row.method, row.inStep, row.messages...))
				})
			})
		}

		// The client goes before its deadline: at the deadline it and the service both end the call, and the one that
		// Traefik hears first decides the verdict.
		for _, row := range []struct {
			name     string
			deadline time.Duration
		}{{"a deadline is the service's too", time.Minute}, {"a call cancelled ends at the service", 0}} {
			t.Run(row.name, func(t *testing.T) {
				for _, c := range []*grpc.ClientConn{plain, web} {
					p.judge(t, unknown, func() {
						ctx, cancel := context.WithCancel(t.Context())
						if row.deadline > 0 {
							ctx, cancel = context.WithTimeout(t.Context(), row.deadline)
						}
						defer cancel()
						go func() {
							await(t, server.waiting)
							cancel()
						}()
						require.Equal(t, codes.Canceled, call(ctx, c, "Wait", false).code)
						require.Equal(t, row.deadline > 0, await(t, server.ended))
					})
				}
			})
		}
		t.Run("a service that is down", func(t *testing.T) {
			server.server.Stop()
			want := call(t.Context(), plain, "Count", false)
			require.Equal(t, codes.Unavailable, want.code)
			p.judge(t, failed, func() {
				require.Equal(t, want, call(t.Context(), web, "Count", false))
			})
		})
	})
}

func await(t *testing.T, from chan bool) bool {
	t.Helper()
	select {
	case limited := <-from:
		return limited
	case <-time.After(soon):
		assert.Fail(t, "the service has not heard of it")
		return false
	}
}
