package gateway

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

const (
	good  = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
	both  = "POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
	both2 = "POST /b HTTP/1.1\r\nHost: x\r\ntransfer-ENCODING: chunked\r\nCONTENT-length: 3\r\n\r\n0\r\n\r\n"
)

// scans are streams of requests, and which of them net/http serves behind a guard: their targets, "!" where it stops.
var scans = map[string]string{
	good: "/a", good + good: "/a /a", both: "!", both2: "!", good + both + good: "/a !",
	"POST /l HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello" + both: "/l !",
	"POST /l HTTP/1.1\r\nHost: x\r\nContent-Length:5 \r\n\r\nhello" + good: "/l /a",
	// What looks like a head in a body is none.
	fmt.Sprintf("POST /l HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(both), both) +
		good: "/l /a",
	fmt.Sprintf("POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%X;ext=\"a\" \r\n%s\r\n0\r\n\r\n",
		len(both), both) + both + good: "/c !",
	"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n000\r\nTrailer-A: 1\r\nB: 2\r\n\r\n" +
		both: "/c !",
	"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: A\r\n\r\n0\r\nA: 1\r\n\r\n" + good: "/c /a",
	// Lines that end in LF alone are lines to net/http.
	"POST /b HTTP/1.1\nHost: x\nContent-Length: 3\nTransfer-Encoding: chunked\n\n0\r\n\r\n": "!",
	"POST /l HTTP/1.1\nHost: x\nContent-Length: 5\n\nhello" + good:                          "/l /a",
	"POST /l HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx\r\n\r\n" + both:              "/l !",
	// What servers are known to read differently.
	"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding : chunked\r\n\r\nabc":    "!",
	"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length : 3\r\nTransfer-Encoding: chunked\r\n\r\nabc":    "!",
	"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding:\r\n chunked\r\n\r\nabc": "!",
	"POST /b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n\tchunked\r\n\r\n0\r\n\r\n":               "!",
	"POST /b HTTP/1.1\r\nHost: x\r\nX: a\r\n Transfer-Encoding: chunked\r\n\r\n":                    "!",
	"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n 3\r\n\r\nabc":                               "!",
	"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc":              "!",
	"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc":              "!",
	"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 3, 3\r\n\r\nabc":                                "!",
	"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: +3\r\n\r\nabc":                                  "!",
	"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 0x3\r\n\r\nabc":                                 "!",
	"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 3 3\r\n\r\nabc":                                 "!",
	"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\rX: 4\r\n\r\nabc":                             "!",
	"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n\r\nabc":                                     "!",
	"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\nabc":                "!",
	"POST /b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n":     "!",
	"POST /b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n":                   "!",
	"POST /b HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n":                    "!",
	"POST /b HTTP/1.1 \r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n":                   "!",
	"GET /b HTTP/1.1\r\nHost: x\r\n\rX: y\r\n\r\n" +
		good: "!",
	"PRI * HTTP/2.0\r\n\r\nSX\r\n\r\n" + both: "* !",
	"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nT: " + strings.Repeat("t", 5000) +
		"\r\nU: \r\n" + good: "/c !",
	// Bodies that are malformed end everything: what follows is no request.
	"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n" +
		good: "/c !",
	"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n" +
		good: "/c !",
	"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n\r\n" +
		good: "/c !",
	"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5 1\r\nhello\r\n0\r\n\r\n" +
		good: "/c !",
	"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n" +
		good: "/c !",
	"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000000\r\n\r\n" +
		good: "/c !",
	"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n folded\r\n\r\n" +
		good: "/c !",
	"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: 1\n\n" +
		good: "/c !",
	"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nno colon\r\n\r\n" +
		good: "/c !",
	"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;" + strings.Repeat("e", 4000) +
		"\r\nx\r\n": "/c !",
}

// scanned reads all of in through a scanner, in pieces of a size.
type scanned struct {
	in    []byte
	piece int
	s     scanner
	over  bool
}

func (r *scanned) Read(p []byte) (int, error) {
	if len(r.in) == 0 || r.over {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), r.piece)], r.in)
	r.in = r.in[n:]
	kept := r.s.scan(p[:n])
	r.over = kept < n
	return kept, nil
}

// serve reads requests as net/http's server does, and returns their targets and raw heads. It reads on after a
// malformed body: so does net/http, for handlers that stream both ways.
func serve(text string, from io.Reader) (targets []string, heads []string) {
	counter := &counting{r: from}
	r := bufio.NewReaderSize(counter, 4096)
	at := func() int { return counter.n - r.Buffered() }
	post := false
	for {
		for range 4 { // as net/http, after a POST
			if c, err := r.Peek(1); !post || err != nil || c[0] != '\r' && c[0] != '\n' {
				break
			}
			_, _ = r.Discard(1)
		}
		begin := at()
		if _, err := r.Peek(1); err != nil {
			if begin < len(text) {
				return append(targets, "!"), heads
			}
			return targets, heads
		}
		req, err := http.ReadRequest(r)
		if err == nil && req.ProtoMajor != 1 && (req.Proto != "HTTP/2.0" || req.Method != "PRI" || req.RequestURI != "*") {
			err = http.ErrNotSupported
		}
		if err == nil {
			for name, vv := range req.Header {
				if strings.ContainsFunc(name, func(c rune) bool {
					return c <= ' ' || c >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, c)
				}) {
					err = http.ErrNotSupported
				}
				for _, v := range vv {
					if strings.ContainsFunc(v, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }) {
						err = http.ErrNotSupported
					}
				}
			}
		}
		if err != nil {
			return append(targets, "!"), heads
		}
		targets, heads, post = append(targets, req.RequestURI), append(heads, text[begin:at()]), req.Method == "POST"
		_, _ = io.Copy(io.Discard, req.Body)
	}
}

type counting struct {
	r io.Reader
	n int
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}

func TestScannerWhateverTheSplit(t *testing.T) {
	for text, want := range scans {
		for piece := 1; piece <= len(text)+1; piece += 1 + piece/100*20 {
			got, _ := serve(text, &scanned{in: []byte(text), piece: piece})
			if strings.Join(got, " ") != want {
				t.Errorf("%q in pieces of %d: %v, want %q", text, piece, got, want)
				break
			}
		}
	}
}

// ambiguous says, without the scanner's help, whether a head is one that is to be refused.
func ambiguous(head string) bool {
	length, encoding := 0, 0
	for n, line := range strings.Split(head, "\n") {
		name, _, ok := strings.Cut(line, ":")
		switch name = strings.ToLower(strings.TrimSpace(name)); {
		case n == 0:
		case ok && name == "content-length":
			length++
		case ok && name == "transfer-encoding":
			encoding++
		case line != "" && (line[0] == ' ' || line[0] == '\t'):
			return true
		}
	}
	first, _, _ := strings.Cut(head, "\n")
	return length+encoding > 1 || encoding > 0 && strings.HasSuffix(strings.TrimSpace(first), "1.0")
}

// FuzzScanner: whatever the client sends, net/http serves nothing ambiguous, and what is not ambiguous passes
// unchanged.
func FuzzScanner(f *testing.F) {
	for text := range scans {
		f.Add(text, 7)
	}
	f.Fuzz(func(t *testing.T, text string, piece int) {
		if piece < 1 || strings.HasPrefix(text, preface) {
			return
		}
		got, heads := serve(text, &scanned{in: []byte(text), piece: piece})
		for _, h := range heads {
			if ambiguous(h) {
				t.Fatalf("%q was served: %v", h, got)
			}
		}
		whole := &scanned{in: []byte(text), piece: len(text) + 1}
		passed, _ := io.ReadAll(whole)
		if whole.over || whole.s.state == scanNothing {
			return
		}
		if !bytes.Equal(passed, []byte(text)) {
			t.Fatalf("%q became %q", text, passed)
		}
		plain, _ := serve(text, strings.NewReader(text))
		if fmt.Sprint(plain) != fmt.Sprint(got) {
			t.Fatalf("%q: %v without a guard, %v with one", text, plain, got)
		}
	})
}
