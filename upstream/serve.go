package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"
)

// serve answers requests until ctx ends. Requests that run then have grace to end.
func serve(ctx context.Context, listener net.Listener, grace time.Duration) error {
	service := newService()
	server := newServer(service)
	server.RegisterOnShutdown(service.sockets.close)
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return shutDown(server, service, grace)
	}
}

// newServer returns a server of HTTP/1.1 and of HTTP/2 without TLS.
func newServer(handler http.Handler) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{Handler: handler, Protocols: protocols, ReadHeaderTimeout: 10 * time.Second}
}

func shutDown(server *http.Server, service *service, grace time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if server.Shutdown(ctx) != nil || service.sockets.wait(ctx) != nil {
		server.Close()
		return fmt.Errorf("cut what still ran %s after the signal", grace)
	}
	return nil
}
