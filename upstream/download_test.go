package main

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

func TestPattern_isAReadSeeker(t *testing.T) {
	for _, size := range []int{0, 1, period - 1, period, period + 1, len(repeated), len(repeated) + 7} {
		require.NoError(t, iotest.TestReader(&pattern{size: int64(size)}, repeat(size)), size)
	}
}

func TestPattern_refusesAnOffsetBeforeTheStart(t *testing.T) {
	_, err := (&pattern{size: 10}).Seek(-11, io.SeekEnd)
	require.EqualError(t, err, "pattern: an offset before the start; seek to 0 or later")
}

func TestDownload_sendsThePatternOrARangeOfIt(t *testing.T) {
	address := start(t)
	cases := []struct {
		size, from, to int
		ranges         string
		status         int
	}{
		{0, 0, 0, "", http.StatusOK},
		{1000, 0, 1000, "", http.StatusOK},
		{1 << 20, 0, 1 << 20, "", http.StatusOK},
		{1000, 300, 400, "bytes=300-399", http.StatusPartialContent},
		{1000, 990, 1000, "bytes=-10", http.StatusPartialContent},
		{1000, 0, 0, "bytes=1000-", http.StatusRequestedRangeNotSatisfiable},
	}
	both(t, func(t *testing.T, client *http.Client) {
		for _, c := range cases {
			request, err := http.NewRequest(http.MethodGet, "http://"+address+"/download?bytes="+strconv.Itoa(c.size), nil)
			require.NoError(t, err)
			if c.ranges != "" {
				request.Header.Set("Range", c.ranges)
			}
			response, err := client.Do(request)
			require.NoError(t, err)
			body, err := io.ReadAll(response.Body)
			response.Body.Close()
			require.NoError(t, err)
			require.Equal(t, c.status, response.StatusCode, c.ranges)
			if c.status == http.StatusRequestedRangeNotSatisfiable {
				continue
			}
			require.Equal(t, "application/octet-stream", response.Header.Get("Content-Type"))
			require.Equal(t, int64(c.to-c.from), response.ContentLength)
			require.True(t, string(repeat(c.size)[c.from:c.to]) == string(body), c.ranges)
		}
	})
}

func TestDownload_isLargeByDefault(t *testing.T) {
	address := start(t)
	cases := []struct{ query, length string }{
		{"", "104857600"},
		{"?bytes=2147483648", "2147483648"},
	}
	for _, c := range cases {
		response, _ := exchange(t, client(t, 1), http.MethodHead, address+"/download"+c.query, "")
		require.Equal(t, c.length, response.Header.Get("Content-Length"))
	}
}

func TestAbort_cutsTheBodyShort(t *testing.T) {
	address := start(t)
	both(t, func(t *testing.T, client *http.Client) {
		for _, after := range []int{0, 10, 100_000} {
			response, err := client.Get("http://" + address + "/abort?after=" + strconv.Itoa(after))
			require.NoError(t, err)
			body, err := io.ReadAll(response.Body)
			response.Body.Close()
			require.Error(t, err)
			require.Equal(t, int64(after+missing), response.ContentLength)
			require.Len(t, body, after)
		}
	})
}

func TestHangup_endsTheConnectionWithoutAnAnswer(t *testing.T) {
	address := start(t)
	both(t, func(t *testing.T, client *http.Client) {
		// Not a GET, which a client may send again.
		_, err := client.Post("http://"+address+"/hangup", "", strings.NewReader("x"))
		require.Error(t, err)
		require.False(t, err.(interface{ Timeout() bool }).Timeout(), err)
	})
}
