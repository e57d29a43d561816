package gateway

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// reply is the client's ResponseWriter. It sets the gateway's own headers at the last moment: the proxy clears the
// header map after every 1xx response, and services set headers that are not theirs.
type reply struct {
	http.ResponseWriter
	id     string
	ids    [2]string // values of the header of the request to the service, and of the answer
	cors   *CORS
	origin string // allowed
	major  int    // version of HTTP towards the client
	status int
	bytes  int64

	body *clientBody // of an HTTP/1 request that is read beside the answer

	policy string // of the rate limit, when answers carry it
	quota  Quota

	writeTimeout time.Duration // for a client that does not read; 0: none
	deadline     time.Time     // of the present write
	ended        atomic.Bool   // the whole exchange has run out of time
}

// closeConnection ends an HTTP/1 connection with this answer. On HTTP/2 net/http would make a GOAWAY of the header, and
// so end the streams of other requests.
func (w *reply) closeConnection() {
	if w.major == 1 {
		w.Header().Set("Connection", "close")
	}
}

// limitWrites bounds how long the client may not read.
func (w *reply) limitWrites(timeout time.Duration) { w.writeTimeout = max(timeout, 0) }

// progress moves the deadline of writing. It asks the connection once in a quarter of the timeout.
func (w *reply) progress() {
	if w.writeTimeout == 0 || w.ended.Load() {
		return
	}
	now := time.Now()
	if w.deadline.Sub(now) > w.writeTimeout*3/4 {
		return
	}
	w.deadline = now.Add(w.writeTimeout)
	_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(w.deadline)
}

// endWrites ends a write that waits for the client when ctx ends, until the function that it returns is called: nil for
// a ctx without a deadline.
func (w *reply) endWrites(ctx context.Context) (stop func() bool) {
	if _, ok := ctx.Deadline(); !ok {
		return nil
	}
	return context.AfterFunc(ctx, func() {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			w.ended.Store(true)
			_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Now().Add(endGrace))
		}
	})
}

// endGrace is left for the answer that says that time has run out.
const endGrace = time.Second

// liftDeadline ends the deadline of writing, for the next request of the connection. One that endWrites has set stays.
func (w *reply) liftDeadline(stop func() bool) {
	if (stop == nil || stop()) && !w.deadline.IsZero() {
		_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Time{})
	}
}

// disconnected ends an answer to a client that went away. A client that has closed one direction only still waits, and
// must not take silence for success.
func (w *reply) disconnected() {
	w.closeConnection()
	w.WriteHeader(statusGone)
}

// Unwrap lets http.ResponseController flush and hijack.
func (w *reply) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (w *reply) WriteHeader(status int) {
	if w.status != 0 {
		return
	}
	h := w.Header()
	if status < 200 && status != http.StatusSwitchingProtocols {
		removeHop(h)
		w.removeOwn(h)
		w.ResponseWriter.WriteHeader(status)
		return
	}
	w.status = status
	if w.body != nil && !w.body.ended.Load() { // net/http fails to read the next request behind the rest of the body
		w.closeConnection()
	}
	w.setOwn(h)
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *reply) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	w.progress()
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

// Flush implements http.Flusher, for a Fallback that looks for it.
func (w *reply) Flush() { _ = w.FlushError() }

// FlushError is what http.ResponseController calls.
func (w *reply) FlushError() error {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	w.progress()
	if f, ok := w.ResponseWriter.(interface{ FlushError() error }); ok { // the server's own: without a controller
		return f.FlushError()
	}
	return http.NewResponseController(w.ResponseWriter).Flush()
}

func (w *reply) removeOwn(h http.Header) {
	delete(h, correlationKey)
	if w.cors != nil {
		for name := range h {
			if strings.HasPrefix(name, "Access-Control-") {
				delete(h, name)
			}
		}
	}
}

func (w *reply) setOwn(h http.Header) {
	w.removeOwn(h)
	w.ids[1] = w.id
	h[correlationKey] = w.ids[1:2:2]
	if w.policy != "" {
		w.setQuota(h)
	}
	if w.cors == nil {
		return
	}
	if !slices.Contains(w.cors.Origins, "*") {
		h.Add("Vary", "Origin")
	}
	if w.origin == "" {
		return
	}
	h["Access-Control-Allow-Origin"] = []string{w.origin}
	h["Access-Control-Expose-Headers"] = []string{strings.Join(w.cors.Expose, ", ")}
	if w.cors.Credentials {
		h["Access-Control-Allow-Credentials"] = []string{"true"}
	}
}

// allow is the value of Access-Control-Allow-Origin, or "".
func (c *CORS) allow(origin string) string {
	switch {
	case c == nil || origin == "":
		return ""
	case slices.Contains(c.Origins, "*"):
		return "*"
	case slices.Contains(c.Origins, origin):
		return origin
	}
	return ""
}

// allowOrigin makes the answer's CORS headers those of c.
func (w *reply) allowOrigin(c *CORS, r *http.Request) {
	w.cors, w.origin = c, ""
	if c != nil {
		w.origin = c.allow(r.Header.Get("Origin"))
	}
}

// isPreflight reports whether a request is a browser's question about another one.
func isPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && r.Header.Get("Origin") != "" &&
		r.Header.Get("Access-Control-Request-Method") != ""
}

// preflighted is the request that a browser asks about, as far as it says.
func preflighted(r *http.Request) *http.Request {
	asked := *r
	asked.Method = r.Header.Get("Access-Control-Request-Method")
	return &asked
}

// preflight answers a browser's question, and reports whether it did: without CORS services answer.
func (w *reply) preflight() bool {
	if w.cors == nil {
		return false
	}
	w.writeHeaderWith(http.StatusNoContent, func(h http.Header) {
		h.Add("Vary", "Access-Control-Request-Method, Access-Control-Request-Headers")
		if w.origin == "" {
			return
		}
		h.Set("Access-Control-Allow-Methods", strings.Join(w.cors.Methods, ", "))
		h.Set("Access-Control-Allow-Headers", strings.Join(w.cors.Headers, ", "))
		if w.cors.MaxAge > 0 {
			h.Set("Access-Control-Max-Age", strconv.Itoa(int(w.cors.MaxAge.Seconds())))
		}
	})
	return true
}

// writeHeaderWith ends an answer without a body, whose header set completes.
func (w *reply) writeHeaderWith(status int, set func(http.Header)) {
	w.status = status
	w.setOwn(w.Header())
	set(w.Header())
	w.ResponseWriter.WriteHeader(status)
}

// hop are the headers that concern one connection only.
var hop = []string{
	"Connection",
	"Proxy-Connection",
	"Keep-Alive",
	"Proxy-Authenticate",
	"Proxy-Authorization",
	"Te",
	"Trailer",
	"Transfer-Encoding",
	"Upgrade",
}

func removeHop(h http.Header) {
	for _, line := range h["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range hop {
		delete(h, name)
	}
}
