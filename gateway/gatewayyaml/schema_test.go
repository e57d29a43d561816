package gatewayyaml

import (
	"bytes"
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sillar-go/sillar/gateway"
)

var update = flag.Bool("update", false, "write routes.schema.json")

const schemaFile = "routes.schema.json"

// comments are those of the fields of the gateway's and the breaker's types, by type and field.
func comments(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, file := range []string{"../config.go", "../transport.go", "../../breaker/config.go"} {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			fields, ok := spec.Type.(*ast.StructType)
			if !ok {
				return true
			}
			last := ""
			for _, f := range fields.Fields.List {
				text := strings.Join(strings.Fields(f.Doc.Text()), " ")
				if text == "" { // it is described with the field before it
					text = last
				}
				last = text
				for _, name := range f.Names {
					all[spec.Name.Name+"."+name.Name] = text
				}
			}
			return true
		})
	}
	return all
}

// schemaOf describes values of a type.
func schemaOf(typ reflect.Type, docs map[string]string) map[string]any {
	switch typ {
	case reflect.TypeFor[time.Duration]():
		return map[string]any{"anyOf": []any{
			map[string]any{"type": "string", "pattern": `^(-1|[-+]?(([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$`},
			map[string]any{"const": -1},
		}}
	case reflect.TypeFor[gateway.Balance]():
		return map[string]any{"enum": []any{gateway.PowerOfTwo, gateway.LeastRequests, gateway.RoundRobin}}
	}
	switch typ.Kind() {
	case reflect.Pointer:
		return schemaOf(typ.Elem(), docs)
	case reflect.Slice:
		return map[string]any{"type": "array", "items": schemaOf(typ.Elem(), docs)}
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": schemaOf(typ.Elem(), docs)}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.String:
		return map[string]any{"type": "string"}
	case reflect.Float64:
		return map[string]any{"type": "number"}
	case reflect.Int, reflect.Int64:
		return map[string]any{"type": "integer"}
	}
	properties, required := map[string]any{}, []string{}
	for name, f := range fieldsOf(typ) {
		s := schemaOf(f.Type, docs)
		owner := map[string]string{"trip": "Config", "route": "Route"}[typ.Name()]
		if owner == "" {
			owner = typ.Name()
		}
		if doc := docs[owner+"."+f.Name]; doc != "" {
			s["description"] = doc
		}
		properties[name] = s
		if tag := f.Tag.Get("json"); tag != "" && !strings.Contains(tag, "omitempty") {
			required = append(required, name)
		}
	}
	out := map[string]any{"type": "object", "additionalProperties": false, "properties": properties}
	if len(required) > 0 {
		slices.Sort(required)
		out["required"] = required
	}
	return out
}

// The schema has each key of the file, with its type and what the Go type says of it. "go test -update" writes it.
func TestSchemaIsThatOfTheTypes(t *testing.T) {
	schema := schemaOf(reflect.TypeFor[document](), comments(t))
	schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	schema["title"] = "Routes of a sillar gateway"
	schema["required"] = []string{"routes"}
	var want bytes.Buffer
	e := json.NewEncoder(&want)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(schema); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(schemaFile, want.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want.Bytes()) {
		t.Errorf("%s is not that of the types: go test ./gateway/gatewayyaml -run Schema -update", schemaFile)
	}
	routes := schema["properties"].(map[string]any)["routes"].(map[string]any)
	route := routes["items"].(map[string]any)["properties"].(map[string]any)
	for name, s := range route {
		if name != "breaker" && s.(map[string]any)["description"] == nil {
			t.Errorf("%s has no description", name)
		}
	}
}

// Every field of a route can be set in YAML, and arrives.
func TestEveryFieldIsRead(t *testing.T) {
	text, err := os.ReadFile("testdata/every.yaml")
	if err != nil {
		t.Fatal(err)
	}
	routes, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	set := map[string]bool{}
	var walk func(prefix string, v reflect.Value)
	walk = func(prefix string, v reflect.Value) {
		if v.Kind() == reflect.Pointer {
			if v.IsNil() { // another route has it
				return
			}
			v = v.Elem()
		}
		if v.Kind() != reflect.Struct {
			set[prefix] = set[prefix] || !v.IsZero()
			return
		}
		for f, value := range v.Fields() {
			walk(prefix+"."+f.Name, value)
		}
	}
	for _, r := range routes {
		walk("", reflect.ValueOf(r))
	}
	for name, ok := range set {
		if !ok && !strings.HasPrefix(name, ".Breaker.") {
			t.Errorf("Route%s is not set by any route of testdata/every.yaml", name)
		}
	}
	for f := range reflect.TypeFor[trip]().Fields() {
		if !set[".Breaker."+f.Name] {
			t.Errorf("Route.Breaker.%s does not arrive", f.Name)
		}
	}
	if r := routes[0]; r.Transport.TLS.ServerName != "users.internal" || r.CORS.MaxAge != time.Hour ||
		r.Headers["X-Channel"] != "beta" || r.DialWait != -1 {
		t.Errorf("got %+v", r)
	}
}
