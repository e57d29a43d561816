package observability

import (
	"bufio"
	"io"
	"net"
	"net/http"
)

// writer notes what is answered. It stands before the server's ResponseWriter and is shown to handlers only inside
// one of the types below, which have exactly the optional interfaces that the inner one has. Everything else, such as
// deadlines and full duplex, http.ResponseController reaches through Unwrap.
type writer struct {
	http.ResponseWriter
	status   int // 0 until the header is written
	bytes    int64
	hijacked bool
}

func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *writer) WriteHeader(code int) {
	w.ResponseWriter.WriteHeader(
		code,
	) // panics for a code that is none: then nothing has been answered
	if w.status == 0 && (code >= 200 || code == http.StatusSwitchingProtocols) { // other 1xx come before the answer
		w.status = code
	}
}

func (w *writer) begin() {
	if w.status == 0 {
		w.status = http.StatusOK
	}
}

func (w *writer) Write(b []byte) (int, error) {
	w.begin()
	n, err := w.ResponseWriter.Write(b)
	w.bytes += int64(n)
	return n, err
}

func (w *writer) WriteString(s string) (int, error) {
	w.begin()
	n, err := io.WriteString(w.ResponseWriter, s)
	w.bytes += int64(n)
	return n, err
}

type flusher struct{ *writer }

func (f flusher) Flush() { _ = f.FlushError() }

func (f flusher) FlushError() error {
	f.begin()
	if e, ok := f.ResponseWriter.(interface{ FlushError() error }); ok {
		return e.FlushError()
	}
	f.ResponseWriter.(http.Flusher).Flush()
	return nil
}

type hijacker struct{ *writer }

func (h hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := h.ResponseWriter.(http.Hijacker).Hijack()
	if err == nil {
		h.hijacked = true
	}
	return c, rw, err
}

type readerFrom struct{ *writer }

func (r readerFrom) ReadFrom(src io.Reader) (int64, error) {
	before := r.status
	r.begin()
	n, err := r.ResponseWriter.(io.ReaderFrom).ReadFrom(src)
	if n == 0 {
		r.status = before // nothing has been sent
	}
	r.bytes += n
	return n, err
}

// The optional interfaces, without the methods of the writer that each embeds.
type (
	flushes interface {
		http.Flusher
		FlushError() error
	}
	base interface {
		http.ResponseWriter
		io.StringWriter
		Unwrap() http.ResponseWriter
	}
)

// The combinations. The first is that of HTTP/1, the second that of HTTP/2; they lie in the request's own memory.
type (
	withFHR struct {
		base
		flushes
		http.Hijacker
		io.ReaderFrom
	}
	withF struct {
		base
		flushes
	}
)

// show returns w with the optional interfaces that the inner writer has.
func (q *request) show() http.ResponseWriter {
	w := &q.w
	_, f := w.ResponseWriter.(http.Flusher)
	if !f {
		_, f = w.ResponseWriter.(interface{ FlushError() error })
	}
	_, h := w.ResponseWriter.(http.Hijacker)
	_, r := w.ResponseWriter.(io.ReaderFrom)
	switch {
	case f && h && r:
		q.fhr = withFHR{w, flusher{w}, hijacker{w}, readerFrom{w}}
		return &q.fhr
	case f && h:
		return struct {
			base
			flushes
			http.Hijacker
		}{w, flusher{w}, hijacker{w}}
	case f && r:
		return struct {
			base
			flushes
			io.ReaderFrom
		}{w, flusher{w}, readerFrom{w}}
	case f:
		q.f = withF{w, flusher{w}}
		return &q.f
	case h && r:
		return struct {
			base
			http.Hijacker
			io.ReaderFrom
		}{w, hijacker{w}, readerFrom{w}}
	case h:
		return struct {
			base
			http.Hijacker
		}{w, hijacker{w}}
	case r:
		return struct {
			base
			io.ReaderFrom
		}{w, readerFrom{w}}
	}
	return struct{ base }{w}
}
