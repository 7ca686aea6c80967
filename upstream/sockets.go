package main

import (
	"context"
	"fmt"
	"net/http"
	"sync"

	"github.com/coder/websocket"
)

// largestMessage is the largest WebSocket message that is echoed; a larger one ends the connection with 1009.
const largestMessage = 16 << 20

// sockets holds the open WebSockets, which the server no longer tracks. It is safe for concurrent use.
type sockets struct {
	closing context.Context
	close   context.CancelFunc
	open    sync.WaitGroup
}

func newSockets() *sockets {
	closing, cancel := context.WithCancel(context.Background())
	return &sockets{closing: closing, close: cancel}
}

// wait returns once all sockets are closed, or the error of ctx once that has ended.
func (s *sockets) wait(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		s.open.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// serve echoes messages, or closes at once if the query has a code.
func (s *sockets) serve(w http.ResponseWriter, r *http.Request) error {
	code, err := closeCode(r)
	if err != nil {
		return err
	}
	s.open.Add(1)
	defer s.open.Done()
	// Any origin is accepted: there is nothing to steal, and a gateway may change the host.
	socket, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return nil // Accept has told the client
	}
	defer socket.CloseNow()
	if code != 0 {
		socket.Close(code, "closed on purpose")
		return nil
	}
	s.echo(socket)
	return nil
}

// echo returns when the socket is closed. A close of the client is answered with the client's code.
func (s *sockets) echo(socket *websocket.Conn) {
	defer context.AfterFunc(s.closing, func() { socket.Close(websocket.StatusGoingAway, "shutting down") })()
	socket.SetReadLimit(largestMessage)
	for {
		kind, message, err := socket.Read(context.Background())
		if err != nil {
			return
		}
		if socket.Write(context.Background(), kind, message) != nil {
			return
		}
	}
}

// closeCode returns the code in the query, or 0 if there is none. Some codes must not be sent.
func closeCode(r *http.Request) (websocket.StatusCode, error) {
	value, err := whole(r, "close", 0, 1000, 4999)
	if err != nil {
		return 0, err
	}
	if value >= 1004 && value <= 1006 || value >= 1015 && value < 3000 {
		return 0, fmt.Errorf("close: %d must not be sent; write 1000, 1011 or 3000 to 4999", value)
	}
	return websocket.StatusCode(value), nil
}
