package observability

import (
	"log/slog"
	"net/http"
	"strings"
)

// unmatched is the endpoint of requests that no route took.
const unmatched = "unmatched"

// Mux is an http.ServeMux that notes the pattern it matched, whole: of nested ones, under http.StripPrefix too, the
// patterns are joined, and middleware in between may copy the request's context as it likes.
type Mux struct{ mux http.ServeMux }

// Mux returns a new Mux. It needs nothing of t but Middleware around it.
func (t *Telemetry) Mux() *Mux { return &Mux{} }

// Handle registers a handler, as http.ServeMux does.
func (m *Mux) Handle(pattern string, h http.Handler) {
	if h == nil {
		panic("observability: nil handler for " + pattern)
	}
	path := patternPath(pattern)
	m.mux.Handle(pattern, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if q := requestFrom(r.Context()); q != nil {
			q.note(path, r.URL.Path)
		}
		h.ServeHTTP(w, r)
	}))
}

// HandleFunc registers a function, as http.ServeMux does.
func (m *Mux) HandleFunc(pattern string, h func(http.ResponseWriter, *http.Request)) {
	m.Handle(pattern, http.HandlerFunc(h))
}

// Handler returns what would serve the request, as http.ServeMux does.
func (m *Mux) Handler(r *http.Request) (http.Handler, string) { return m.mux.Handler(r) }

// ServeHTTP implements http.Handler.
func (m *Mux) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if q := requestFrom(r.Context()); q != nil {
		q.mu.Lock()
		q.noted = true // what matches nothing here is unmatched, whatever stands in Request.Pattern
		q.mu.Unlock()
	}
	m.mux.ServeHTTP(w, r)
}

// note joins a matched pattern to what outer muxes have matched. path is the path that this mux saw.
func (q *request) note(pattern, path string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	outer, outerPath := q.pattern, q.patternPath
	q.pattern, q.patternPath = pattern, path
	switch {
	case outer == "" || path == outerPath: // this mux saw what the outer one did: its pattern says more
	case len(path) < len(outerPath) && strings.HasSuffix(outerPath, path):
		q.stripped += leading(outer, strings.Count(outerPath[:len(outerPath)-len(path)], "/"))
	default: // the path was rewritten: nothing is known about its relation to the outer one
		q.stripped = ""
	}
	q.route = q.stripped + pattern
}

// leading returns the first n segments of a pattern: those that the outer mux matched and the inner one does not see.
func leading(pattern string, n int) string {
	end := 0
	for range n {
		i := strings.IndexByte(pattern[end+1:], '/')
		if i < 0 {
			return strings.TrimSuffix(pattern, "/")
		}
		end += 1 + i
	}
	return strings.TrimSuffix(pattern[:end], "/")
}

// patternPath returns the path of a pattern: [METHOD ][HOST]/PATH, without the {$} that ends it.
func patternPath(pattern string) string {
	if i := strings.IndexAny(pattern, " \t"); i >= 0 {
		pattern = strings.TrimLeft(pattern[i:], " \t")
	}
	if i := strings.IndexByte(pattern, '/'); i > 0 {
		pattern = pattern[i:]
	}
	return strings.TrimSuffix(pattern, "{$}")
}

// end returns what has been noted about a request: its endpoint, whether it is silent, and its log fields.
func (q *request) end(r *http.Request) (endpoint string, silent bool, attrs []slog.Attr) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.endpoint(r), q.silent, q.attrs
}

// endpoint returns the route for metrics and spans. Without a Mux it is what http.ServeMux left in r: the innermost
// pattern of muxes that saw this very request.
func (q *request) endpoint(r *http.Request) string {
	if q.noted || r.Pattern == "" {
		if q.route == "" {
			return unmatched
		}
		return q.route
	}
	if r.Pattern == r.URL.Path+"/" { // http.ServeMux redirects, and leaves the client's path there
		return unmatched
	}
	return patternPath(r.Pattern)
}
