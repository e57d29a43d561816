package observability_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// emitted is what the library's code names: metrics and attributes, spans, log fields.
type emitted struct{ metrics, attributes, spans, fields map[string]string }

// brokers share their counters, each under its own name.
var brokers = []string{"jetstream", "kafka", "rabbitmq"}

// text returns the value of a string literal, "" of another expression.
func text(x ast.Expr) string {
	if l, ok := x.(*ast.BasicLit); ok && l.Kind == token.STRING {
		if s, err := strconv.Unquote(l.Value); err == nil {
			return s
		}
	}
	return ""
}

// constructors are the calls whose literal names what goes out: by method, which map and which argument.
func (e emitted) call(c *ast.CallExpr, where string) {
	sel, ok := c.Fun.(*ast.SelectorExpr)
	if !ok {
		return
	}
	pkg := ""
	if id, ok := sel.X.(*ast.Ident); ok {
		pkg = id.Name
	}
	literal := func(i int, to map[string]string) {
		if i >= len(c.Args) {
			return
		}
		x := c.Args[i]
		if b, ok := x.(*ast.BinaryExpr); ok {
			if middle, ok := b.X.(*ast.BinaryExpr); ok && text(middle.X) == "sillar." { // "sillar." + broker + ".published"
				for _, broker := range brokers {
					to[text(middle.X)+broker+text(b.Y)] = where
				}
				return
			}
		}
		for b, ok := x.(*ast.BinaryExpr); ok; b, ok = x.(*ast.BinaryExpr) {
			x = b.X // "process " + topic
		}
		if s := text(x); s != "" {
			to[strings.TrimSpace(s)] = where
		}
	}
	name := sel.Sel.Name
	switch {
	case instrument.MatchString(name) && pkg != "atomic":
		literal(0, e.metrics)
	case pkg == "attribute":
		literal(0, e.attributes)
	case pkg == "slog" && attr.MatchString(name):
		literal(0, e.fields)
	case name == "Start" && len(c.Args) > 1:
		literal(1, e.spans)
	case name == "AddEvent":
		literal(0, e.spans)
	case logs.MatchString(name) && pkg != "http" && pkg != "slog":
		first := 1
		if strings.HasSuffix(name, "Context") {
			first = 2
		}
		for i := first; i+1 < len(c.Args); i += 2 {
			literal(i, e.fields)
		}
	}
}

var (
	instrument = regexp.MustCompile(`^(Int64|Float64)(Observable)?(Counter|UpDownCounter|Histogram|Gauge)$`)
	attr       = regexp.MustCompile(`^(String|Int|Int64|Uint64|Float64|Bool|Time|Duration|Any|Group)$`)
	logs       = regexp.MustCompile(`^(Debug|Info|Warn|Error)(Context)?$`)
)

// library parses all code that others import.
func library(t *testing.T) emitted {
	t.Helper()
	e := emitted{map[string]string{}, map[string]string{}, map[string]string{}, map[string]string{}}
	for _, root := range []string{"authn", "breaker", "gateway", "internal/problem", "messaging", "observability",
		"repository", "saga"} {
		err := filepath.WalkDir(filepath.Join("..", root), func(path string, d fs.DirEntry, err error) error {
			if d.IsDir() && d.Name() == "brokertest" { // a suite for the adapters' tests
				return fs.SkipDir
			}
			if err != nil || d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return err
			}
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if c, ok := n.(*ast.CallExpr); ok {
					e.call(c, path)
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return e
}

// The page names everything that goes out, and no metric that does not exist.
func TestThePageIsWhole(t *testing.T) {
	raw, err := os.ReadFile("../docs/telemetry.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(raw)
	onPage := map[string]bool{}
	for _, m := range regexp.MustCompile("`([^`\n]+)`").FindAllStringSubmatch(page, -1) {
		onPage[m[1]] = true
	}
	e := library(t)
	if len(e.metrics) < 14 || len(e.attributes) < 20 || len(e.spans) < 6 || len(e.fields) < 30 {
		t.Errorf("%d metrics, %d attributes, %d spans, %d fields found: the search itself is broken", len(e.metrics),
			len(e.attributes), len(e.spans), len(e.fields))
	}
	for kind, names := range map[string]map[string]string{"metric": e.metrics, "attribute": e.attributes,
		"span or event": e.spans, "log field": e.fields} {
		for name, where := range names {
			if !onPage[name] && !slices.ContainsFunc([]string{" {topic}", " {saga}", " {step}"}, func(s string) bool {
				return onPage[name+s]
			}) {
				t.Errorf("%s %q of %s is not on the page", kind, name, where)
			}
		}
	}
	metric := regexp.MustCompile(`Name: "([a-z_]+)"|(?:counter|histogram)\("([a-z_]+)"`)
	for _, m := range metric.FindAllStringSubmatch(source(t, "metrics.go"), -1) {
		if name := m[1] + m[2]; !onPage[name] {
			t.Errorf("metric %s is not on the page", name)
		}
	}
	for name := range onPage {
		if _, ok := e.metrics[name]; strings.HasPrefix(name, "sillar.") && !ok && e.attributes[name] == "" {
			t.Errorf("the page speaks of %s, which no code makes", name)
		}
	}
}

func source(t *testing.T, file string) string {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}
