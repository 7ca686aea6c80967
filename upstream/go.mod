// The service behind the gateway in the demo and the end-to-end tests; a module of its own so that the plugin's
// module does not carry its dependencies.
module github.com/resilient-gateway/resilience/upstream

go 1.26.0

require (
	github.com/coder/websocket v1.8.15
	github.com/stretchr/testify v1.11.1
)

require (
	github.com/davecgh/go-spew v1.1.1 // indirect
	github.com/pmezard/go-difflib v1.0.0 // indirect
	gopkg.in/yaml.v3 v3.0.1 // indirect
)
