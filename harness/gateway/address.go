package gateway

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

// nextPort counts through the ports that FreeAddress tries, from a random one, so that it does not return one of them twice: the program that
// the first was meant for may not listen on it yet.
var nextPort atomic.Int64

func init() { nextPort.Store(rand.Int64N(10000)) }

// FreeAddress returns an address of the loopback interface that nobody listens on. It lies below the ports that systems
// give to outgoing connections: of those, one may be taken before the program that it is meant for listens on it.
// The ports of internal/redistest are others.
func FreeAddress() (string, error) {
	const lowest, number, tries = 20000, 10000, 100
	for range tries {
		listener, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", lowest+nextPort.Add(1)%number))
		if err == nil {
			defer listener.Close()
			return listener.Addr().String(), nil
		}
	}
	return "", fmt.Errorf("none of %d ports from %d to %d is free on 127.0.0.1", tries, lowest, lowest+number-1)
}

// FreePortFrom returns the first port of the loopback interface, from the given one on, that nobody listens on and that is not
// among those taken.
func FreePortFrom(port int, taken ...int) (int, error) {
	for ; port <= 65535; port++ {
		free := CanListen(Loopback(port)) == nil
		for _, other := range taken {
			free = free && port != other
		}
		if free {
			return port, nil
		}
	}
	return 0, errors.New("no port is free on 127.0.0.1")
}

// Loopback returns the address of a port on the loopback interface.
func Loopback(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }

// CanListen returns in one line why an address cannot be listened on, or nil.
func CanListen(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return refusal(address, err)
	}
	return listener.Close()
}

func refusal(address string, err error) error {
	switch {
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%s may not be listened on: ports below 1024 need the rights of root here", address)
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%s is taken by another program", address)
	}
	return fmt.Errorf("%s cannot be listened on: %w", address, err)
}

// answers returns a function that reports whether the URL answers with 200.
func answers(url string) func() bool {
	client := &http.Client{Timeout: time.Second}
	return func() bool {
		response, err := client.Get(url)
		if err != nil {
			return false
		}
		response.Body.Close()
		return response.StatusCode == http.StatusOK
	}
}

func listens(address string) func() bool {
	return func() bool {
		c, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			return false
		}
		c.Close()
		return true
	}
}
