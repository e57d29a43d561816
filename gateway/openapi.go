package gateway

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
)

// mergeOpenAPI makes one document of those of the services. Each keeps its place under its route's prefix; its
// components are named after it, so that two services may both have a "User". A service that does not answer, or has no
// document, is left out until the next time.
func (g *Gateway) mergeOpenAPI(ctx context.Context) []byte {
	routes := g.table.Load().routes
	docs := make([]map[string]any, len(routes))
	var fetches sync.WaitGroup
	for n, r := range routes {
		if r.OpenAPI == "-" {
			continue
		}
		fetches.Go(func() {
			for _, i := range r.rotation.Load().all {
				text, status := g.fetch(ctx, i.instance, r.OpenAPI, maxDocument)
				var doc map[string]any
				if status == 200 && json.Unmarshal(text, &doc) == nil {
					docs[n] = doc
					return
				}
			}
		})
	}
	fetches.Wait()
	paths, components, tags := map[string]any{}, map[string]any{}, []any{}
	for n, doc := range docs {
		if doc != nil {
			tags = append(tags, map[string]any{"name": routes[n].Name})
			routes[n].mergeInto(doc, paths, components)
		}
	}
	out, err := json.Marshal(map[string]any{
		"openapi": "3.1.0", "info": map[string]any{"title": g.cfg.Title, "version": "1"},
		"paths": paths, "components": components, "tags": tags,
	})
	if err != nil { // it was decoded from JSON
		return []byte("{}")
	}
	return out
}

func (r *route) mergeInto(doc, paths, components map[string]any) {
	prefix := componentName(r.Name) + "_"
	from, _ := doc["components"].(map[string]any)
	for kind, v := range from {
		named, ok := v.(map[string]any)
		if !ok {
			continue
		}
		into, ok := components[kind].(map[string]any)
		if !ok {
			into = map[string]any{}
			components[kind] = into
		}
		for name, c := range named {
			into[prefix+name] = renamed(c, prefix)
		}
	}
	from, _ = doc["paths"].(map[string]any)
	for path, v := range from {
		item, ok := renamed(v, prefix).(map[string]any)
		if !ok {
			continue
		}
		at, ok := r.clientPath(path)
		if !ok {
			continue
		}
		for method, op := range item {
			o, ok := op.(map[string]any)
			if !ok || !isOperation(method) {
				continue
			}
			o["tags"] = []any{r.Name}
			if id, ok := o["operationId"].(string); ok {
				o["operationId"] = prefix + id
			}
			secured(o, prefix)
		}
		paths[at] = item
	}
}

func isOperation(key string) bool {
	switch key {
	case "get", "put", "post", "delete", "options", "head", "patch", "trace":
		return true
	}
	return false
}

// clientPath is upstreamPath backwards.
func (r *route) clientPath(path string) (string, bool) {
	switch {
	case r.KeepPrefix:
		_, ok := under(path, r.Prefix)
		return path, ok
	case r.Rewrite != "" && r.Rewrite != "/":
		rest, ok := under(path, strings.TrimSuffix(r.Rewrite, "/"))
		return strings.TrimSuffix(r.Prefix, "/") + rest, ok
	}
	if path == "/" && r.Prefix != "/" {
		return r.Prefix, true
	}
	return strings.TrimSuffix(r.Prefix, "/") + path, true
}

// secured renames the security schemes that an operation names.
func secured(op map[string]any, prefix string) {
	list, _ := op["security"].([]any)
	for n, v := range list {
		schemes, ok := v.(map[string]any)
		if !ok {
			continue
		}
		next := map[string]any{}
		for name, scopes := range schemes {
			next[prefix+name] = scopes
		}
		list[n] = next
	}
}

const refBase = "#/components/"

// renamed returns v with its references to components prefixed.
func renamed(v any, prefix string) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			if s, ok := e.(string); ok && k == "$ref" {
				out[k] = reference(s, prefix)
				continue
			}
			if m, ok := e.(map[string]any); ok && k == "mapping" { // of a discriminator
				next := make(map[string]any, len(m))
				for name, s := range m {
					if text, ok := s.(string); ok {
						s = reference(text, prefix)
					}
					next[name] = s
				}
				out[k] = next
				continue
			}
			out[k] = renamed(e, prefix)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for n, e := range v {
			out[n] = renamed(e, prefix)
		}
		return out
	}
	return v
}

func reference(s, prefix string) string {
	rest, ok := strings.CutPrefix(s, refBase)
	if !ok {
		return s
	}
	kind, name, ok := strings.Cut(rest, "/")
	if !ok {
		return s
	}
	return refBase + kind + "/" + prefix + name
}

// componentName keeps what OpenAPI allows in a component's name.
func componentName(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '-', r == '.':
			return r
		}
		return '_'
	}, s)
}
