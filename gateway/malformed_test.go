package gateway_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/sillar-go/sillar/gateway"
)

var updateMalformed = flag.Bool("update", false, "write the table of docs/gateway-malformed.md")

// malformed is what a client sends that is no request, or none that a service can get. An empty text or list means that
// the protocol has no such thing.
type malformed struct {
	name     string
	http1    string
	http2    []string // names and values of the header
	body     string
	trailers []string
	half     bool // the client ends its direction of the connection behind it
}

// h2 is the header of a request with other fields.
func h2(method, path string, more ...string) []string {
	return append([]string{":method", method, ":scheme", "http", ":authority", "x", ":path", path}, more...)
}

func malformedInputs() []malformed {
	const head, chunk = "POST /a HTTP/1.1\r\nHost: x\r\n", "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
	trailer := func(name, trailer string) malformed {
		return malformed{name: name, http1: head + "Trailer: " + trailer + "\r\n" + chunk + "\r\n",
			http2: h2("POST", "/a", "trailer", trailer), body: "a"}
	}
	return []malformed{
		trailer("a trailer with a space is declared", "a b"),
		trailer("a trailer with a control character is declared", "a\x01b"),
		trailer("a trailer that is not ASCII is declared", "\u00e4"),
		trailer("empty trailers are declared", ",,"),
		trailer("a trailer in brackets is declared", "(a)"),
		trailer("Content-Length is declared as a trailer", "Content-Length"),
		{
			name: "a trailer has a control character", http1: head + "Trailer: X-A\r\n" + chunk + "X-A: a\x01b\r\n\r\n",
			http2: h2("POST", "/a", "trailer", "x-a"), body: "a", trailers: []string{"x-a", "a\x01b"},
		},
		{name: "a trailer is a pseudo-header", http2: h2("POST", "/a"), body: "a", trailers: []string{":path", "/b"}},
		{name: "a length and chunks", http1: head + "Content-Length: 5\r\n" + chunk + "\r\n",
			http2: h2("POST", "/a", "content-length", "1", "transfer-encoding", "chunked"), body: "a"},
		{name: "two lengths", http1: head + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
			http2: h2("POST", "/a", "content-length", "1", "content-length", "2"), body: "ab"},
		{name: "a length that is no number", http1: head + "Content-Length: +1\r\n\r\na",
			http2: h2("POST", "/a", "content-length", "+1")},
		{name: "a body shorter than its length", http1: head + "Content-Length: 5\r\n\r\na",
			http2: h2("POST", "/a", "content-length", "5"), body: "a", half: true},
		{name: "a body longer than its length", http2: h2("POST", "/a", "content-length", "1"), body: "abc"},
		{name: "a chunk without a length", http1: head + "Transfer-Encoding: chunked\r\n\r\nzz\r\n"},
		{name: "a chunk that stops", http1: head + "Transfer-Encoding: chunked\r\n\r\n5\r\na", half: true},
		{name: "an unknown transfer encoding", http1: head + "Transfer-Encoding: xchunked\r\n\r\n",
			http2: h2("POST", "/a", "transfer-encoding", "xchunked"), body: "a"},
		{name: "a method with a bracket", http1: "G{T /a HTTP/1.1\r\nHost: x\r\n\r\n", http2: h2("G{T", "/a")},
		{name: "CONNECT", http1: "CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n", http2: []string{":method", "CONNECT",
			":authority", "x:1"}},
		{name: "TRACE", http1: "TRACE /a HTTP/1.1\r\nHost: x\r\n\r\n", http2: h2("TRACE", "/a")},
		{name: "a path with a space", http1: "GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", http2: h2("GET", "/a b")},
		{name: "a path with an encoded NUL", http1: "GET /a/%00 HTTP/1.1\r\nHost: x\r\n\r\n", http2: h2("GET", "/a/%00")},
		{name: "a path with dot segments", http1: "GET /a/../b HTTP/1.1\r\nHost: x\r\n\r\n", http2: h2("GET", "/a/../b")},
		{name: "a path that is no path", http1: "GET a HTTP/1.1\r\nHost: x\r\n\r\n", http2: h2("GET", "a")},
		{name: "no path", http2: []string{":method", "GET", ":scheme", "http", ":authority", "x"}},
		{name: "a query with a broken escape", http1: "GET /a?b|c%zz HTTP/1.1\r\nHost: x\r\n\r\n",
			http2: h2("GET", "/a?b|c%zz")},
		{name: "no Host", http1: "GET /a HTTP/1.1\r\n\r\n", http2: []string{":method", "GET", ":scheme", "http", ":path",
			"/a"}},
		{name: "two Hosts", http1: "GET /a HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", http2: h2("GET", "/a", "host", "y")},
		{name: "a Host with a space", http1: "GET /a HTTP/1.1\r\nHost: a b\r\n\r\n", http2: []string{":method", "GET",
			":scheme", "http", ":authority", "a b", ":path", "/a"}},
		{name: "a header with a space in its name", http1: "GET /a HTTP/1.1\r\nHost: x\r\nX A: b\r\n\r\n",
			http2: h2("GET", "/a", "x a", "b")},
		{name: "a header name in capitals", http2: h2("GET", "/a", "X-A", "b")},
		{name: "a header with a control character", http1: "GET /a HTTP/1.1\r\nHost: x\r\nX-A: a\x01b\r\n\r\n",
			http2: h2("GET", "/a", "x-a", "a\x01b")},
		{name: "a folded header line", http1: "GET /a HTTP/1.1\r\nHost: x\r\nX-A: a\r\n b\r\n\r\n"},
		{name: "a header of 40 KiB", http1: "GET /a HTTP/1.1\r\nHost: x\r\nX-A: " + strings.Repeat("a", 40<<10) + "\r\n\r\n",
			http2: h2("GET", "/a", "x-a", strings.Repeat("a", 40<<10))},
		{name: "a header of 200 KiB", http1: "GET /a HTTP/1.1\r\nHost: x\r\nX-A: " + strings.Repeat("a", 200<<10) +
			"\r\n\r\n"},
		{name: "Connection names a header", http1: "GET /a HTTP/1.1\r\nHost: x\r\nConnection: X-A\r\nX-A: a\r\n\r\n",
			http2: h2("GET", "/a", "connection", "x-a")},
		{name: "Upgrade to h2c",
			http1: "GET /a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: " +
				"AAMAAABkAAQAAP__\r\n\r\n", http2: h2("GET", "/a", "upgrade", "h2c")},
		{name: "Upgrade to a WebSocket, not allowed",
			http1: "GET /a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
			http2: h2("GET", "/a", "upgrade", "websocket")},
		{name: "Connection: Upgrade alone", http1: "GET /a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\r\n"},
		{name: "an unknown expectation", http1: head + "Expect: the worst\r\nContent-Length: 1\r\n\r\na",
			http2: h2("POST", "/a", "expect", "the worst"), body: "a"},
		{name: "TE: chunked", http1: "GET /a HTTP/1.1\r\nHost: x\r\nTE: chunked\r\n\r\n",
			http2: h2("GET", "/a", "te", "chunked")},
		{name: "an unknown version", http1: "GET /a HTTP/3.0\r\nHost: x\r\n\r\n"},
		{name: "no HTTP", http1: "\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", half: true},
	}
}

// sendHTTP1 returns the status of the first answer, or what happened in its place.
func sendHTTP1(t *testing.T, url string, m malformed) string {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	go func() {
		_, _ = io.WriteString(c, m.http1)
		if m.half {
			_ = c.(*net.TCPConn).CloseWrite()
		}
	}()
	line, err := bufio.NewReader(c).ReadString('\n')
	if fields := strings.Fields(line); len(fields) > 1 && err == nil {
		return fields[1]
	}
	return "ended"
}

// sendHTTP2 does the same over a connection of HTTP/2 without TLS.
func sendHTTP2(t *testing.T, url string, m malformed) string {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	var out bytes.Buffer
	out.WriteString(http2.ClientPreface)
	framer := http2.NewFramer(&out, c)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	encode := func(fields []string) []byte {
		block.Reset()
		for n := 0; n < len(fields); n += 2 {
			_ = encoder.WriteField(hpack.HeaderField{Name: fields[n], Value: fields[n+1]})
		}
		return bytes.Clone(block.Bytes())
	}
	headers := func(fields []string, end bool) error {
		rest := encode(fields)
		first := rest[:min(len(rest), 16<<10)]
		rest = rest[len(first):]
		err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: first, EndStream: end,
			EndHeaders: len(rest) == 0})
		for err == nil && len(rest) > 0 {
			part := rest[:min(len(rest), 16<<10)]
			rest = rest[len(part):]
			err = framer.WriteContinuation(1, len(rest) == 0, part)
		}
		return err
	}
	err = errors.Join(framer.WriteSettings(), headers(m.http2, m.body == ""))
	if m.body != "" {
		err = errors.Join(err, framer.WriteData(1, m.trailers == nil, []byte(m.body)))
	}
	if m.trailers != nil {
		err = errors.Join(err, headers(m.trailers, true))
	}
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = c.Write(out.Bytes()) }()
	for {
		f, err := framer.ReadFrame()
		if err != nil {
			return "ended"
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			return f.PseudoValue("status")
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return "ended"
		}
	}
}

const malformedPage = "../docs/gateway-malformed.md"

// What clients get for what is no request, over each protocol and to instances of each, and what the breaker counts:
// never a failure. The table is that of the documentation.
func TestMalformedInputsTimesProtocols(t *testing.T) {
	handler := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	plain := httptest.NewServer(handler)
	defer plain.Close()
	secure := httptest.NewUnstartedServer(handler)
	secure.EnableHTTP2 = true
	secure.Config.MaxHeaderBytes = 16 << 10 // what it advertises
	secure.StartTLS()
	defer secure.Close()
	roots := secure.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	var table strings.Builder
	table.WriteString("| input | 1 to 1 | 1 to 2 | 2 to 1 | 2 to 2 |\n|---|---|---|---|---|\n")
	for _, m := range malformedInputs() {
		fmt.Fprintf(&table, "| %s |", m.name)
		for _, client := range []string{"1", "2"} {
			for _, up := range []string{plain.URL, secure.URL} {
				cell := "\u2013"
				if client == "1" && m.http1 != "" || client == "2" && m.http2 != nil {
					cell = malformedCell(t, m, client, up, roots)
				}
				fmt.Fprintf(&table, " %s |", cell)
			}
		}
		table.WriteString("\n")
	}
	page, err := os.ReadFile(malformedPage)
	if err != nil {
		t.Fatal(err)
	}
	before, _, found := strings.Cut(string(page), "| input |")
	if want := before + table.String(); !found || string(page) != want {
		if !*updateMalformed {
			for line := range strings.Lines(table.String()) {
				if !strings.Contains(string(page), line) {
					t.Errorf("%s has another line than this (go test ./gateway -run Malformed -update): %s", malformedPage, line)
				}
			}
			t.FailNow()
		}
		if err := os.WriteFile(malformedPage, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// malformedCell sends an input, and then a valid request, through a gateway of its own.
func malformedCell(t *testing.T, m malformed, client, up string, roots *x509.CertPool) string {
	t.Helper()
	gw := gateway.Must(gateway.New(gateway.Config{
		Anonymous: true, Logger: slog.New(slog.DiscardHandler), UpstreamTLS: &tls.Config{RootCAs: roots},
		Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{up}, MaxEjection: 1}},
	}))
	defer gw.CloseIdleConnections()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := gateway.NewServer("", gw)
	srv.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	go func() { _ = srv.Serve(l) }()
	defer srv.Close()
	url := "http://" + l.Addr().String()
	if a := do(t, "GET", url+"/a", ""); a.StatusCode != 200 { // the settings of HTTP/2 arrive
		t.Fatal(a.Status)
	}
	var got string
	if client == "1" {
		got = sendHTTP1(t, url, m)
	} else {
		got = sendHTTP2(t, url, m)
	}
	if a := do(t, "GET", url+"/a", ""); a.StatusCode != 200 {
		t.Errorf("%s, %s to %s: the next client got %s", m.name, client, up, a.Status)
	}
	counts, inFlight := gw.OnlyInstance()
	for deadline := time.Now().Add(30 * time.Second); inFlight > 0 &&
		time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		counts, inFlight = gw.OnlyInstance()
	}
	if counts.Failures > 0 {
		t.Errorf("%s, %s to %s: the breaker counted a failure", m.name, client, up)
	}
	if strings.HasPrefix(got, "5") && got != "501" && got != "505" {
		t.Errorf("%s, %s to %s: the client got %s", m.name, client, up, got)
	}
	switch {
	case got == "ended": // perhaps before the instance is tried
	case counts.Successes > 2:
		got += ", success"
	case counts.Ignored > 0:
		got += ", ignored"
	}
	return got
}
