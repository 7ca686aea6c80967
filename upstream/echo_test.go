package main

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEcho_showsTheRequest(t *testing.T) {
	address := start(t)
	both(t, func(t *testing.T, client *http.Client) {
		request, err := http.NewRequest(http.MethodPut, "http://"+address+"/echo?a=1&b=%20", strings.NewReader("hi"))
		require.NoError(t, err)
		request.Host = "shop.example"
		request.Header["X-Two"] = []string{"one", "two"}
		response, err := client.Do(request)
		require.NoError(t, err)
		defer response.Body.Close()

		text, err := io.ReadAll(response.Body)
		require.NoError(t, err)

		got := read[echoed](t, string(text))
		require.Equal(t, http.MethodPut, got.Method)
		require.Equal(t, "/echo", got.Path)
		require.Equal(t, "a=1&b=%20", got.Query)
		require.Equal(t, "shop.example", got.Host)
		require.Equal(t, []string{"one", "two"}, got.Headers["X-Two"])
		require.Equal(t, "hi", got.Body)
		require.True(t, strings.HasPrefix(got.RemoteAddr, "127.0.0.1:"), got.RemoteAddr)
	})
}

func TestEcho_refusesALargeBody(t *testing.T) {
	address := start(t)
	cases := []struct{ size, status int }{
		{echoedBytes, http.StatusOK},
		{echoedBytes + 1, http.StatusRequestEntityTooLarge},
	}
	for _, c := range cases {
		response, body := exchange(t, client(t, 1), http.MethodPost, address+"/echo", strings.Repeat("x", c.size))
		require.Equal(t, c.status, response.StatusCode)
		if c.status != http.StatusOK {
			require.Equal(t, `{"error":"body: too large; send at most 1048576 bytes"}`, body)
		}
	}
}

func TestUpload_answersWithSizeAndDigest(t *testing.T) {
	address := start(t)
	both(t, func(t *testing.T, client *http.Client) {
		for _, body := range []string{"", "hello", strings.Repeat("x", 3<<20)} {
			digest := sha256.Sum256([]byte(body))
			want := uploaded{int64(len(body)), hex.EncodeToString(digest[:])}
			_, text := exchange(t, client, http.MethodPost, address+"/upload", body)
			require.Equal(t, want, read[uploaded](t, text))
		}
	})
}
