package gateway

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// reply is the client's ResponseWriter. It sets the gateway's own headers at the last moment: the proxy clears the
// header map after every 1xx response, and services set headers that are not theirs.
type reply struct {
	http.ResponseWriter
	id     string
	cors   *CORS
	origin string // allowed
	status int
	bytes  int64
}

// gone ends an answer that nobody waits for. Whoever does all the same, having closed one direction only, must not take
// silence for success.
func (w *reply) gone() {
	w.Header().Set("Connection", "close")
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
	w.setOwn(h)
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *reply) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
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
	h[correlationKey] = []string{w.id}
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

// preflight answers a browser's question, and says whether it was one.
func (g *Gateway) preflight(w *reply, r *http.Request) bool {
	if w.cors == nil || r.Method != http.MethodOptions || r.Header.Get("Origin") == "" || r.Header.Get("Access-Control-Request-Method") == "" {
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
var hop = []string{"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}

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
