package observability

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
)

// SetRoute names the route of the request of ctx in metrics, spans and the access log, for routers that Mux does not
// know. The last call before the request ends counts, also beside a Mux. pattern is a path or a pattern of
// http.ServeMux, one of a fixed number: never the path that a client sends. An empty pattern changes nothing. With chi,
// for example:
//
//	router.Use(func(next http.Handler) http.Handler {
//		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
//			defer func() { observability.SetRoute(r.Context(), chi.RouteContext(r.Context()).RoutePattern()) }()
//			next.ServeHTTP(w, r)
//		})
//	})
func SetRoute(ctx context.Context, pattern string) {
	q := requestFrom(ctx)
	if q == nil || pattern == "" {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.noted, q.route = true, patternPath(pattern)
}

// Router is a handler that knows the pattern of a request before it serves it, as http.ServeMux does.
type Router interface {
	http.Handler
	Handler(r *http.Request) (h http.Handler, pattern string)
}

// Routes serves with mux and names the route of each request before. It is for an http.ServeMux behind something that
// copies the request, such as http.TimeoutHandler. A Mux needs it not.
func Routes(mux Router) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if q := requestFrom(r.Context()); q != nil {
			_, pattern := mux.Handler(r)
			q.mu.Lock()
			q.noted = true
			q.mu.Unlock()
			if path := patternPath(pattern); pattern != "" && path != r.URL.Path+"/" { // which is a redirect
				q.note(path, r.URL.Path)
			}
		}
		mux.ServeHTTP(w, r)
	})
}

// AddLogAttrs adds fields to the access log of the request of ctx, such as the id of what it made. Outside of a request
// it does nothing.
func AddLogAttrs(ctx context.Context, attrs ...slog.Attr) {
	if q := requestFrom(ctx); q != nil {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.attrs = append(slices.Clip(q.attrs), attrs...) // the end of the request may read the former
	}
}
