package gateway

import (
	"cmp"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
)

// table is what a reload replaces: the routes, and how they are found.
type table struct {
	routes   []*route
	sources  map[string]*source
	byPrefix map[string][]*route // the most specific first
	byPlain  map[string][]*route // by plainPath of the prefix
	fold     bool                // prefixes match in any case
	hosts    bool                // a route has Hosts
	cors     bool                // a route has CORS
	// roles are those that admit a caller to some route; nil when a valid token is enough.
	roles []string
}

func (g *Gateway) newTable(routes []Route, old *table) (*table, error) {
	all, errs := completed(routes)
	if len(errs) > 0 {
		return nil, errs[0]
	}
	t := &table{byPrefix: map[string][]*route{}, byPlain: map[string][]*route{}, fold: g.cfg.FoldCase}
	known, sources := old.instances(), map[string]*source{}
	if old != nil {
		sources = old.sources
	}
	anyToken := false
	for n, cfg := range all {
		r, err := g.newRoute(cfg, known, sources)
		if err != nil {
			var wrong *RouteError
			if errors.As(err, &wrong) {
				wrong.Index = n
			}
			return nil, err
		}
		prefix, plain := t.folded(cfg.Prefix), t.plain(cfg.Prefix)
		t.byPrefix[prefix] = append(t.byPrefix[prefix], r)
		t.byPlain[plain] = append(t.byPlain[plain], r)
		t.routes = append(t.routes, r)
		t.hosts = t.hosts || len(r.Hosts) > 0
		t.cors = t.cors || r.cors != nil
		t.roles = append(t.roles, cfg.Roles...)
		anyToken = anyToken || len(cfg.Roles) == 0
	}
	if anyToken {
		t.roles = nil
	}
	for _, same := range []map[string][]*route{t.byPrefix, t.byPlain} {
		for _, of := range same {
			slices.SortStableFunc(of, func(a, b *route) int {
				return cmp.Or(min(len(b.Methods), 1)-min(len(a.Methods), 1), len(b.Headers)-len(a.Headers))
			})
		}
	}
	t.sources = sourcesOf(t.routes)
	return t, nil
}

// instances returns those of all routes by what makes them the same.
func (t *table) instances() map[string]*instance {
	all := map[string]*instance{}
	if t != nil {
		for _, r := range t.routes {
			for _, i := range r.rotation.Load().all {
				all[i.key] = i.instance
			}
		}
	}
	return all
}

func (t *table) folded(path string) string {
	if t.fold {
		return foldPath(path)
	}
	return path
}

// foldPath makes ASCII letters lower case, so that the length stays.
func foldPath(path string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, path)
}

// find returns the route of a request with this path.
func (t *table) find(path string, r *http.Request) *route {
	return t.best(t.byPrefix, t.folded(path), r)
}

// findPlain is find by plainPath.
func (t *table) findPlain(path string, r *http.Request) *route {
	return t.best(t.byPlain, t.plain(path), r)
}

// plain is plainPath as services read it: in any case, where paths are folded.
func (t *table) plain(path string) string {
	if t.fold {
		return strings.ToLower(plainPath(path))
	}
	return plainPath(path)
}

// best returns the route that matches with the most specific host, and of these the one with the longest prefix.
func (t *table) best(routes map[string][]*route, path string, r *http.Request) *route {
	host := ""
	if t.hosts {
		host = hostName(r.Host)
	}
	var best *route
	specific := -1
	for p := path; ; {
		for _, rt := range routes[cmp.Or(p, "/")] {
			if n := rt.match(host, r); n > specific {
				best, specific = rt, n
			}
		}
		if p == "" || best != nil && !t.hosts {
			return best
		}
		p = p[:max(0, strings.LastIndexByte(p, '/'))]
	}
}

// hostName is the name in a Host header.
func hostName(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// match returns how specific the host of the route is that matches, 0 for any, and -1 when the request does not match.
func (r *route) match(host string, req *http.Request) int {
	if len(r.Methods) > 0 && !slices.Contains(r.Methods, req.Method) &&
		(req.Method != http.MethodHead || !slices.Contains(r.Methods, http.MethodGet)) {
		return -1
	}
	for name, want := range r.Headers {
		values := req.Header.Values(name)
		if len(values) == 0 || want != "*" && !slices.Contains(values, want) {
			return -1
		}
	}
	if len(r.Hosts) == 0 {
		return 0
	}
	best := -1
	for _, h := range r.hosts {
		suffix, wild := strings.CutPrefix(h, "*")
		switch {
		case !wild && h == host:
			return 1 << 16
		case wild && len(host) > len(suffix) && strings.HasSuffix(host, suffix):
			best = max(best, len(suffix))
		}
	}
	return best
}
