package main

import (
	"bytes"
	"fmt"
	"go/format"
)

// The interpreter cannot assign a method of a standard library's struct to a variable of a function type (yaegi#1356);
// a closure that calls it does the same.
const (
	construct = "do.dialContext = do.dialer.DialContext"
	closure   = `do.dialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			return do.dialer.DialContext(ctx, network, addr)
		}`
	notice = "// Changed for Traefik's interpreter, Yaegi, from redigo as published: see do.dialContext.\n\n"
)

// adapt rewrites the construct wherever it occurs in a source file of redigo, and returns how often.
func adapt(name string, source []byte) (adapted []byte, times int, err error) {
	times = bytes.Count(source, []byte(construct))
	if times == 0 {
		return source, 0, nil
	}
	adapted = append([]byte(notice), bytes.ReplaceAll(source, []byte(construct), []byte(closure))...)
	if adapted, err = format.Source(adapted); err != nil {
		return nil, times, fmt.Errorf("%s: %w", name, err)
	}
	return adapted, times, nil
}
