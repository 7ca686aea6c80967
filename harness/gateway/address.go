package gateway

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"time"
)

// FreeAddress returns an address of the loopback interface that nobody listens on. It lies below the ports that systems
// give to outgoing connections: of those, one may be taken before the program that it is meant for listens on it.
func FreeAddress() (string, error) {
	const lowest, number, tries = 10000, 20000, 100
	for range tries {
		listener, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", lowest+rand.IntN(number)))
		if err == nil {
			defer listener.Close()
			return listener.Addr().String(), nil
		}
	}
	return "", fmt.Errorf("none of %d ports from %d to %d is free on 127.0.0.1", tries, lowest, lowest+number-1)
}

// Check tells in one line why an address cannot be listened on, if it cannot.
func Check(address, remedy string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("%s is taken by another program; %s", address, remedy)
	}
	return listener.Close()
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
