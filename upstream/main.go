// Command upstream is the service behind the gateway in the demo and the end-to-end tests. It answers well, slowly,
// badly, in pieces or not at all, as the path asks; routes.go lists the paths.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const (
	defaultListen = ":8081"

	// grace is how long requests may take after a signal. It is below the 10 seconds that docker compose gives.
	grace = 5 * time.Second
)

type options struct {
	listen string
	health bool
}

func main() {
	options, err := parse(os.Args[1:], os.Getenv("UPSTREAM_LISTEN"), os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		fmt.Fprintln(os.Stderr, "upstream:", err)
		os.Exit(2)
	}
	if err := run(options, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "upstream:", err)
		os.Exit(1)
	}
}

// parse reads the flags. It writes the usage to help if a flag asks for it.
func parse(args []string, listen string, help io.Writer) (options, error) {
	if listen == "" {
		listen = defaultListen
	}
	var o options
	flags := flag.NewFlagSet("upstream", flag.ContinueOnError)
	flags.StringVar(&o.listen, "listen", listen, "`address` to listen on; UPSTREAM_LISTEN sets the default")
	flags.BoolVar(&o.health, "health", false, "ask the service that runs at that address for its health, and exit 0 or 1")
	flags.SetOutput(io.Discard)
	err := flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		flags.SetOutput(help)
		flags.Usage()
	}
	if err == nil && flags.NArg() > 0 {
		err = fmt.Errorf("%q is not a flag; write -listen ADDRESS or -health", flags.Arg(0))
	}
	return o, err
}

// run checks the health of a running service, or runs one until a signal comes. It announces its address on out.
func run(o options, out io.Writer) error {
	if o.health {
		return checkHealth(o.listen)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // so that a second signal ends us at once
	listener, err := net.Listen("tcp", o.listen)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "listening on", listener.Addr())
	return serve(ctx, listener, grace)
}
