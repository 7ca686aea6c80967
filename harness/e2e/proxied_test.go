package e2e

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

// proxied sends a request as a proxy does that speaks the PROXY protocol, and returns the status.
func proxied(t *testing.T, address, client, path string) int {
	t.Helper()
	c, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer c.Close()
	fmt.Fprintf(c, "PROXY TCP4 %s 127.0.0.1 4711 80\r\nGET %s HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n", client, path)
	response, err := http.ReadResponse(bufio.NewReader(c), nil)
	require.NoError(t, err)
	response.Body.Close()
	return response.StatusCode
}
