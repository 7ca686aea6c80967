package soak

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// attacker is a client that sends what no honest one does, again and again, each time on a new connection. It stays below
// its rate limit: what it sends reaches the breaker.
type attacker struct {
	kind, name string
	many       int                     // at each gateway
	hold       time.Duration           // how long an attack may take at most
	pause      time.Duration           // between one and the next
	attack     func(c net.Conn) string // tells the answer's status
}

func (a attacker) title() string { return a.kind + ": " + a.name }

const quickly, patiently = 2 * time.Second, 12 * time.Second

var attackers = []attacker{
	{"malformed", "a bad chunk size", 1, quickly, 300 * time.Millisecond, chunks("xyz\r\nhello\r\n0\r\n\r\n")},
	{"malformed", "a chunk that does not end where it should", 1, quickly, 300 * time.Millisecond, chunks("5\r\nhello, world\r\n0\r\n\r\n")},
	{"malformed", "a chunk that breaks off", 1, quickly, 300 * time.Millisecond, brokenOff("5\r\nhe")},
	{"malformed", "good chunks, then a bad one", 1, quickly, 300 * time.Millisecond, chunks(strings.Repeat("5\r\nhello\r\n", 2000) + "xyz\r\n\r\n")},
	{"malformed", "a malformed trailer", 1, quickly, 300 * time.Millisecond, chunks("5\r\nhello\r\n0\r\nno trailer\r\n\r\n")},
	{"malformed", "CONNECT", 1, quickly, 300 * time.Millisecond, says("CONNECT /proxy/ok HTTP/1.1\r\nHost: shop.example\r\n\r\n")},
	{"malformed", "an Upgrade that is not ASCII", 1, quickly, 300 * time.Millisecond,
		says("GET /proxy/ok HTTP/1.1\r\nHost: shop.example\r\nConnection: Upgrade\r\nUpgrade: w\xe9bsocket\r\n\r\n")},

	{"slow upload", "no body", 8, patiently, 250 * time.Millisecond, says(upload + "Content-Length: 1000\r\n\r\n")},
	{"slow upload", "no body, for a second", 8, time.Second, 250 * time.Millisecond, says(upload + "Content-Length: 1000\r\n\r\n")},
	{"slow upload", "a byte a second", 8, patiently, 250 * time.Millisecond, drip},

	{"slow reader", "of a large answer", 4, 2 * sendTimeout, 250 * time.Millisecond, sip},

	{"HTTP/2", "less than the content-length", 1, quickly, 300 * time.Millisecond, short},
	{"HTTP/2", "a reset in the middle of the body", 1, quickly, 300 * time.Millisecond, resetBody},
	{"leaves", "over HTTP/2, before the answer", 1, quickly, 300 * time.Millisecond, resetWait},
	{"leaves", "over HTTP/1, before the answer", 1, 100 * time.Millisecond, 300 * time.Millisecond,
		says("GET /proxy/slow HTTP/1.1\r\nHost: shop.example\r\n\r\n")},
	{"leaves", "over HTTP/1, in the middle of its body", 1, 100 * time.Millisecond, 300 * time.Millisecond,
		says(upload + "Content-Length: 1000\r\n\r\nhello")},
}

const upload = "POST /proxy/upload HTTP/1.1\r\nHost: shop.example\r\n"

// says sends a text, and waits for the answer.
func says(text string) func(c net.Conn) string {
	return func(c net.Conn) string {
		io.WriteString(c, text)
		return status(c)
	}
}

func chunks(body string) func(c net.Conn) string {
	return says(upload + "Transfer-Encoding: chunked\r\n\r\n" + body)
}

// brokenOff sends chunks and closes its side of the connection.
func brokenOff(body string) func(c net.Conn) string {
	return func(c net.Conn) string {
		io.WriteString(c, upload+"Transfer-Encoding: chunked\r\n\r\n"+body)
		c.(*net.TCPConn).CloseWrite()
		return status(c)
	}
}

// drip sends a byte of its body a second, for as long as the connection may last.
func drip(c net.Conn) string {
	io.WriteString(c, upload+"Content-Length: 1000\r\n\r\n")
	answered := make(chan struct{})
	defer close(answered)
	go func() {
		for {
			select {
			case <-answered:
				return
			case <-time.After(time.Second):
				io.WriteString(c, "x")
			}
		}
	}()
	return status(c)
}

// sip reads the beginning of a large answer, and no more.
func sip(c net.Conn) string {
	c.(*net.TCPConn).SetReadBuffer(4 << 10)
	io.WriteString(c, "GET /proxy/large HTTP/1.1\r\nHost: shop.example\r\n\r\n")
	seen := status(c)
	if seen == "200" {
		time.Sleep(2 * sendTimeout)
	}
	return seen
}

// status reads the first line of an answer.
func status(c net.Conn) string {
	line, err := bufio.NewReaderSize(c, 64).ReadString('\n')
	if fields := strings.Fields(line); err == nil && len(fields) > 1 {
		return fields[1]
	}
	return "none"
}

func short(c net.Conn) string {
	return overHTTP2(c, func(f *http2.Framer) {
		headers(f, "POST", "/proxy/upload", "content-length", "10")
		f.WriteData(1, true, []byte("abc"))
	})
}

func resetBody(c net.Conn) string {
	return overHTTP2(c, func(f *http2.Framer) {
		headers(f, "POST", "/proxy/upload", "content-length", "10")
		f.WriteData(1, false, []byte("abc"))
		time.Sleep(20 * time.Millisecond)
		f.WriteRSTStream(1, http2.ErrCodeCancel)
		c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	})
}

func resetWait(c net.Conn) string {
	return overHTTP2(c, func(f *http2.Framer) {
		headers(f, "GET", "/proxy/slow")
		time.Sleep(50 * time.Millisecond)
		f.WriteRSTStream(1, http2.ErrCodeCancel)
		c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	})
}

// overHTTP2 begins a connection over HTTP/2 without TLS, and returns the status of the first stream, or how that ended.
func overHTTP2(c net.Conn, send func(f *http2.Framer)) string {
	io.WriteString(c, http2.ClientPreface)
	f := http2.NewFramer(c, c)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	f.WriteSettings()
	send(f)
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return "none"
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			return frame.PseudoValue("status")
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return "reset"
		}
	}
}

// headers begins the request of stream 1; one of GET is whole with it.
func headers(f *http2.Framer, method, path string, fields ...string) {
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for i, all := 0, append([]string{":method", method, ":scheme", "http", ":authority", "shop.example", ":path", path}, fields...); i < len(all); i += 2 {
		encoder.WriteField(hpack.HeaderField{Name: all[i], Value: all[i+1]})
	}
	f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: method == "GET"})
}

// attacks are what all attackers did. It is safe for concurrent use.
type attacks struct {
	end    time.Time
	mu     sync.Mutex                // guards counts
	counts map[string]map[string]int // by what was sent and what the answer was
}

// run has every attacker attack the gateway until the end. Each has its own address, and so a bucket.
func (a *attacks) run(gateway string, first int, clients *sync.WaitGroup) (next int) {
	for _, one := range attackers {
		for range one.many {
			from := loopback(first)
			first++
			clients.Go(func() {
				for time.Now().Before(a.end) {
					a.once(one, from, gateway)
					time.Sleep(one.pause)
				}
			})
		}
	}
	return first
}

func (a *attacks) once(one attacker, from net.IP, gateway string) {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: from}, Timeout: time.Second}
	answer := "no connection"
	if c, err := dialer.Dial("tcp", gateway); err == nil {
		c.SetDeadline(time.Now().Add(min(one.hold, time.Until(a.end))))
		answer = one.attack(c)
		c.Close()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	name := one.title()
	if a.counts[name] == nil {
		a.counts[name] = map[string]int{}
	}
	a.counts[name][answer]++
}

// loopback returns one of the loopback addresses, all of which Linux has.
func loopback(n int) net.IP { return net.IPv4(127, 0, byte(1+n/200), byte(1+n%200)) }

// String tells what was sent, and what the answers were.
func (a *attacks) String() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var b strings.Builder
	for _, one := range attackers {
		fmt.Fprintf(&b, "%-55s %v\n", one.title(), a.counts[one.title()])
	}
	return b.String()
}
