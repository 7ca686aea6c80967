package main

import (
	"fmt"
	"net"
	"net/http"
	"time"
)

// checkHealth asks the service that listens on the address for its health, and returns nil if it is healthy.
func checkHealth(listen string) error {
	address, err := reachable(listen)
	if err != nil {
		return err
	}
	// Not the default transport, which would use a proxy that the environment names.
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 2 * time.Second}
	answer, err := client.Get("http://" + address + "/health")
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s/health answers %d instead of 200", address, answer.StatusCode)
	}
	return nil
}

// reachable returns the address to dial for a listen address, which may stand for all addresses.
func reachable(listen string) (string, error) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", fmt.Errorf("listen: %q is not an address; write %s", listen, defaultListen)
	}
	if port == "" || port == "0" {
		return "", fmt.Errorf("listen: %q has no fixed port to ask; write %s", listen, defaultListen)
	}
	switch host {
	case "", "0.0.0.0":
		host = "127.0.0.1"
	case "::":
		host = "::1"
	}
	return net.JoinHostPort(host, port), nil
}
