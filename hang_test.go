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
	require.True(t, m.newHang(report) == nil, "without a hangTimeout")

	m.hangTimeout = time.Hour
	prompt := m.newHang(report)
	prompt.begin()
	require.False(t, prompt.end())

	m.hangTimeout = 30 * time.Millisecond
	late := m.newHang(report)
	late.begin()
	late.begin()
	<-reports
	require.True(t, late.end())
	require.Len(t, reports, 0, "it is reported once")
}

func TestHang_timeoutStartsAtTheEndOfTheBody(t *testing.T) {
	reports := make(chan bool, 10)
	m := &Middleware{settings: &settings{hangTimeout: 30 * time.Millisecond}}

	r := requestWith("POST", strings.NewReader("abc"))
	h := m.newHang(func() { reports <- true })
	watchBody(r).onWhole(h.begin)
	io.ReadFull(r.Body, make([]byte, 3))
	require.False(t, started(h), "the body has not ended")
	io.Copy(io.Discard, r.Body)
	<-reports

	broken := requestWith("POST", &failing{io.ErrUnexpectedEOF})
	h = m.newHang(func() { reports <- true })
	watchBody(broken).onWhole(h.begin)
	io.Copy(io.Discard, broken.Body)
	require.False(t, started(h), "the body has ended with an error")
	require.False(t, h.end())
	require.Len(t, reports, 0)
}

// started reports whether the timeout has started.
func started(h *hang) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.timer != nil
}
