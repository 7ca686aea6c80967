// The language version is the interpreter's: Yaegi v0.16.1 shares loop variables and knows nothing newer, and the
// compiler holds us to the same.
module github.com/resilient-gateway/resilience

go 1.21

require github.com/gomodule/redigo v1.9.3

require (
	github.com/davecgh/go-spew v1.1.1 // indirect
	github.com/pmezard/go-difflib v1.0.0 // indirect
	github.com/stretchr/testify v1.11.1
	gopkg.in/yaml.v3 v3.0.1 // indirect
)
