package gateway

import (
	"fmt"
	"net"
	"net/http"
	"time"
)

// FreeAddress returns an address of the loopback interface that nobody listens on.
func FreeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}

// Check tells in one line why an address cannot be listened on, if it cannot.
func Check(address, remedy string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("%s is taken by another program; %s", address, remedy)
	}
	return listener.Close()
}

// answers returns a function that tells whether the URL answers with 200.
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
