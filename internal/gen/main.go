// Command gen writes the fast path: one handler for each combination of limiter, breaker and key source, all from one template, so that
// none of them pays for what it does not use. It runs by go generate in the root of the module.
package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"go/format"
	"os"
	"text/template"
)

//go:embed fastpath.go.tmpl
var text string

// variant is one handler of the fast path.
type variant struct {
	Name   string
	Doc    string // what it does, after "returns a handler that"
	Limit  bool
	Break  bool
	Source string // of the identity: connection, header, checkedHeader, derived or other; "": none is needed
	Own    bool   // the limiter's refusals are not the default ones
	Counts bool   // admitted requests have headers that say what is left of the bucket
	Plan   bool   // requests are under plans
}

// variants returns the handlers that today's features need.
func variants() []variant {
	all := []variant{{Name: "fastBreak", Doc: "breaks", Break: true}}
	for _, source := range []struct{ name, suffix, doc string }{
		{"connection", "Connection", "by the address of the connection"},
		{"header", "Header", "by a header"},
		{"checkedHeader", "CheckedHeader", "by a header, and treats requests without it in another way"},
		{"derived", "Derived", "by a derived key source"},
		{"other", "Other", "by any other key source"},
	} {
		for _, shown := range []struct {
			suffix, doc string
			own, counts bool
		}{ // the narrower case comes first
			{"Counted", ", says what is left", true, true},
			{"Own", ", with refusals of the route's own", true, false},
			{"", "", false, false},
		} {
			limit := variant{
				Name: "fastLimit" + source.suffix + shown.suffix, Doc: "limits " + source.doc + shown.doc,
				Limit: true, Source: source.name, Own: shown.own, Counts: shown.counts,
			}
			both := limit
			both.Name, both.Doc, both.Break = "fastBoth"+source.suffix+shown.suffix, limit.Doc+", and breaks", true
			all = append(all, limit, both)
		}
	}
	for _, source := range []struct{ name, suffix, doc string }{
		{"derived", "Derived", "by what a plan depends on"},
		{"connection", "Connection", "by the address of the connection"},
		{"header", "Header", "by a header"},
		{"other", "Other", "by any other key source"},
	} {
		all = append(all,
			variant{Name: "fastPlan" + source.suffix, Doc: "limits by plans, " + source.doc, Limit: true, Source: source.name, Plan: true},
			variant{Name: "fastPlanBoth" + source.suffix, Doc: "limits by plans, " + source.doc + ", and breaks", Limit: true, Break: true, Source: source.name, Plan: true})
	}
	return all
}

// generate returns the source of the fast path.
func generate() ([]byte, error) {
	parsed, err := template.New("fastpath").Parse(text)
	if err != nil {
		return nil, err
	}
	var source bytes.Buffer
	if err := parsed.Execute(&source, variants()); err != nil {
		return nil, err
	}
	return format.Source(source.Bytes())
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: gen FILE")
		os.Exit(2)
	}
	source, err := generate()
	if err == nil {
		err = os.WriteFile(os.Args[1], source, 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}
