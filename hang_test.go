package resilience

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestHang_isReportedAfterTheTimeout(t *testing.T) {
	reports := make(chan bool, 10)
	report := func() { reports <- true }
	m := &Middleware{settings: &settings{}}
	require.True(t, m.newHang(report) == nil, "off")
	m.hangTimeout = 30 * time.Millisecond

	late := m.newHang(report)
	late.begin()
	late.begin()
	<-reports
	require.True(t, late.end())

	prompt := m.newHang(report)
	prompt.begin()
	require.False(t, prompt.end())

	r := requestWith("POST", strings.NewReader("abc"))
	uploading := m.newHang(report)
	uploading.beginWith(watchBody(r))
	io.ReadFull(r.Body, make([]byte, 3))
	time.Sleep(60 * time.Millisecond)
	require.Len(t, reports, 0, "the body has not ended")
	io.Copy(io.Discard, r.Body)
	<-reports

	broken := requestWith("POST", &failing{io.ErrUnexpectedEOF})
	never := m.newHang(report)
	never.beginWith(watchBody(broken))
	io.Copy(io.Discard, broken.Body)
	time.Sleep(60 * time.Millisecond)
	require.False(t, never.end(), "the body has not ended well")
	require.Len(t, reports, 0)
}
