// The language version is the interpreter's: Yaegi v0.16.1 shares loop variables and knows nothing newer, and the
// compiler holds us to the same.
module github.com/resilient-gateway/resilience

go 1.21

require github.com/gomodule/redigo v1.9.3

require github.com/stretchr/testify v1.11.1 // indirect
