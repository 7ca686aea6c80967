package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// smokePath is answered on the internal entry point only, with a small bucket in front of it: see dynamic/smoke.yml.
const smokePath = "/smoke"

var client = &http.Client{Timeout: 5 * time.Second}

func status(url string) (int, error) {
	response, err := client.Get(url)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return response.StatusCode, err
}

// smoke requests the path until one request has passed, and then until one is limited.
func smoke(url string, patience time.Duration) (passed string, err error) {
	const most = 200 // of them, in a burst
	deadline := time.Now().Add(patience)
	var last int
	for {
		if last, err = status(url); err == nil && last == http.StatusOK {
			break
		}
		if time.Now().After(deadline) {
			return "", fmt.Errorf("%s answers %d and never 200 in %s: %v", url, last, patience, err)
		}
		time.Sleep(200 * time.Millisecond)
	}
	for i := 2; i <= most; i++ {
		if last, err = status(url); err != nil {
			return "", err
		}
		if last == http.StatusTooManyRequests {
			return fmt.Sprintf("a 429 after %d requests", i), nil
		}
	}
	return "", fmt.Errorf("%s: no 429 in %d requests, but %d", url, most, last)
}

// printDisabled prints the routers, middlewares and services that Traefik has disabled, with the reason.
func printDisabled(api string, out io.Writer) error {
	for _, kind := range []string{"routers", "middlewares", "services"} {
		response, err := client.Get(api + "/api/http/" + kind + "?per_page=1000")
		if err != nil {
			return err
		}
		var found []struct {
			Name, Status string
			Error        any `json:"error"`
		}
		err = json.NewDecoder(response.Body).Decode(&found)
		response.Body.Close()
		if err != nil {
			return fmt.Errorf("%s of the API: %w", kind, err)
		}
		for _, object := range found {
			if object.Status != "enabled" || object.Error != nil {
				fmt.Fprintf(out, "%s %s is %s: %v\n", kind[:len(kind)-1], object.Name, object.Status, object.Error)
			}
		}
	}
	return nil
}
