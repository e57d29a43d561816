// Package gatewayyaml reads a gateway's routes from YAML, and reloads them when the file changes.
//
//	routes:
//	  - prefix: /users
//	    upstreams: [http://users:8000]
//	    public: [POST /token]
//	  - prefix: /orders
//	    upstreams: [http://orders-1:8002, http://orders-2:8002]
//	    roles: [customer]
//	    timeout: 10s
//	    rate_limit: {rate: 20, by_subject: true}
//	    breaker: {failures: 5, open_for: 30s}
//
// The keys are those of gateway.Route's JSON, and of breaker failures, failure_rate, slow_rate, slow_call, window,
// min_calls, open_for, max_open_for, probes and observe_only. Durations have a unit, such as 1.5s; -1 is off. The file
// routes.schema.json beside this package is a JSON schema of them, for completion and checks in editors:
//
//	# yaml-language-server: $schema=https://raw.githubusercontent.com/sillar-go/sillar/main/gateway/gatewayyaml/routes.schema.json
//
// A key that does not exist, a key without a value and a value of another type are errors: a misspelt or empty "roles"
// must not admit everyone. Every error names the line, the column and the route: an *Error. Nothing is read from the
// environment and no other file is included.
package gatewayyaml

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/sillar-go/sillar/breaker"
	"github.com/sillar-go/sillar/gateway"
)

// MaxSize is the largest file that is read, in bytes.
const MaxSize = 1 << 20

// maxNodes is how many values a file may have once its aliases are replaced: aliases of aliases grow without bound.
const maxNodes = MaxSize / 4

type document struct {
	Routes []route `yaml:"routes"`
}

// route is a gateway.Route, by the names of its JSON, with the breaker's data.
type route struct {
	gateway.Route `yaml:",inline"`

	Breaker trip `yaml:"breaker"`
}

type trip struct {
	Failures    int           `yaml:"failures"`
	FailureRate float64       `yaml:"failure_rate"`
	SlowRate    float64       `yaml:"slow_rate"`
	SlowCall    time.Duration `yaml:"slow_call"`
	Window      time.Duration `yaml:"window"`
	MinCalls    int           `yaml:"min_calls"`
	OpenFor     time.Duration `yaml:"open_for"`
	MaxOpenFor  time.Duration `yaml:"max_open_for"`
	Probes      int           `yaml:"probes"`
	ObserveOnly bool          `yaml:"observe_only"`
}

// Error says what is wrong with the routes, and where.
type Error struct {
	// Line and Column are where, from 1.
	Line, Column int
	// Route is the prefix of the route that is concerned, "" when none is.
	Route string
	// Err says what is wrong.
	Err error
}

// Error implements error.
func (e *Error) Error() string {
	if e.Route == "" {
		return fmt.Sprintf("gatewayyaml: line %d, column %d: %v", e.Line, e.Column, e.Err)
	}
	return fmt.Sprintf("gatewayyaml: line %d, column %d: route %q: %v", e.Line, e.Column, e.Route, e.Err)
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// parsed is a file that was read, and where what stands in it.
type parsed struct {
	routes []gateway.Route
	at     []place
}

// place is where a route stands.
type place struct {
	prefix string
	begin  *token.Position
	fields map[string]*token.Position
}

// Parse reads routes and checks them. It returns all errors, joined.
func Parse(text []byte) ([]gateway.Route, error) {
	p, err := parse(text)
	if err != nil {
		return nil, err
	}
	return p.routes, nil
}

func parse(text []byte) (*parsed, error) {
	if len(text) > MaxSize {
		return nil, fmt.Errorf("gatewayyaml: more than %d bytes", MaxSize)
	}
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		return nil, located(err, nil)
	}
	if file.Docs != nil && expanded(file.Docs[0].Body, map[string]int{}) > maxNodes {
		return nil, &Error{Line: 1, Column: 1, Err: fmt.Errorf("with its aliases the file has more than %d values", maxNodes)}
	}
	p := &parsed{at: places(file)}
	if len(file.Docs) > 1 && file.Docs[1].Body != nil {
		return nil, &Error{Line: line(file.Docs[1].Body), Column: 1, Err: errors.New("a second document: one file has one")}
	}
	if len(file.Docs) > 0 {
		if err := checkValues(file.Docs[0].Body, reflect.TypeFor[document](), map[string]ast.Node{}); err != nil {
			return nil, located(err, p.at)
		}
	}
	var doc document
	decoder := yaml.NewDecoder(
		bytes.NewReader(text), yaml.Strict(), yaml.CustomUnmarshaler(func(d *time.Duration, text []byte) (err error) {
			*d, err = parseDuration(strings.Trim(strings.TrimSpace(string(text)), `"'`))
			return err
		}),
	)
	if err := decoder.Decode(&doc); err != nil {
		return nil, located(err, p.at)
	}
	if len(doc.Routes) == 0 {
		return nil, &Error{Line: 1, Column: 1, Err: errors.New("no routes")}
	}
	for _, r := range doc.Routes {
		p.routes = append(p.routes, r.route())
	}
	var errs []error
	if joined, ok := gateway.ValidateRoutes(p.routes).(interface{ Unwrap() []error }); ok {
		for _, err := range joined.Unwrap() {
			errs = append(errs, p.locate(err))
		}
	}
	return p, errors.Join(errs...)
}

// locate says where the error of a route is.
func (p *parsed) locate(err error) error {
	var wrong *gateway.RouteError
	if !errors.As(err, &wrong) || wrong.Index >= len(p.at) {
		return err
	}
	at := p.at[wrong.Index].begin
	if field := p.at[wrong.Index].fields[wrong.Field]; field != nil {
		at = field
	}
	return &Error{Line: at.Line, Column: at.Column, Route: wrong.Prefix, Err: fmt.Errorf("%s: %w", wrong.Field, wrong.Err)}
}

// located makes an Error of one of the YAML package.
func located(err error, at []place) error {
	var y yaml.Error
	var e *Error
	switch {
	case errors.As(err, &e):
	case errors.Is(err, io.EOF): // nothing but comments
		return &Error{Line: 1, Column: 1, Err: errors.New("no routes")}
	case !errors.As(err, &y) || y.GetToken() == nil:
		return fmt.Errorf("gatewayyaml: %w", err)
	default:
		pos := y.GetToken().Position
		e = &Error{Line: pos.Line, Column: pos.Column, Err: errors.New(y.GetMessage())}
	}
	for _, p := range at {
		if p.begin.Line < e.Line || p.begin.Line == e.Line && p.begin.Column <= e.Column {
			if e.Route = p.prefix; e.Route == "" {
				e.Route = "?"
			}
		}
	}
	return e
}

func line(n ast.Node) int { return n.GetToken().Position.Line }

// places finds the routes in a file.
func places(file *ast.File) (all []place) {
	if len(file.Docs) == 0 {
		return nil
	}
	for key, list := range pairs(file.Docs[0].Body) {
		routes, ok := plain(list).(*ast.SequenceNode)
		if key.String() != "routes" || !ok {
			continue
		}
		for _, r := range routes.Values {
			p := place{begin: r.GetToken().Position, fields: map[string]*token.Position{}}
			for key, value := range pairs(r) {
				at := key.GetToken().Position
				if len(p.fields) == 0 {
					p.begin = at
				}
				if p.fields[key.String()] = at; key.String() == "prefix" {
					p.prefix = value.GetToken().Value
				}
			}
			all = append(all, p)
		}
	}
	return all
}

// pairs are those of a mapping.
func pairs(n ast.Node) iter.Seq2[ast.MapKeyNode, ast.Node] {
	return func(yield func(ast.MapKeyNode, ast.Node) bool) {
		switch m := plain(n).(type) {
		case *ast.MappingNode:
			for _, v := range m.Values {
				if !yield(v.Key, v.Value) {
					return
				}
			}
		case *ast.MappingValueNode:
			yield(m.Key, m.Value)
		}
	}
}

// expanded counts the values below n, those that aliases stand for as often as they do; a little above maxNodes it is
// enough. anchors holds what was counted before.
func expanded(n ast.Node, anchors map[string]int) (count int) {
	switch n := n.(type) {
	case *ast.MappingNode:
		for _, v := range n.Values {
			count = min(count+expanded(v, anchors), maxNodes+1)
		}
	case *ast.MappingValueNode:
		count = expanded(n.Key, anchors) + expanded(n.Value, anchors)
	case *ast.SequenceNode:
		for _, v := range n.Values {
			count = min(count+expanded(v, anchors), maxNodes+1)
		}
	case *ast.AnchorNode:
		count = expanded(n.Value, anchors)
		anchors[n.Name.String()] = count
	case *ast.AliasNode:
		return max(1, anchors[n.Value.String()])
	case *ast.TagNode:
		return expanded(n.Value, anchors)
	}
	return min(count+1, maxNodes+1)
}

// plain is what an anchor names.
func plain(n ast.Node) ast.Node {
	if a, ok := n.(*ast.AnchorNode); ok {
		return a.Value
	}
	return n
}

func (r route) route() gateway.Route {
	out := r.Route
	out.Breaker = breaker.Config{
		Failures:    r.Breaker.Failures,
		FailureRate: r.Breaker.FailureRate,
		SlowRate:    r.Breaker.SlowRate,
		SlowCall:    r.Breaker.SlowCall,
		Window:      r.Breaker.Window,
		MinCalls:    r.Breaker.MinCalls,
		OpenFor:     r.Breaker.OpenFor,
		MaxOpenFor:  r.Breaker.MaxOpenFor,
		Probes:      r.Breaker.Probes,
		ObserveOnly: r.Breaker.ObserveOnly,
	}
	return out
}

// Load reads routes from a file.
func Load(path string) ([]gateway.Route, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("gatewayyaml: %w", err)
	}
	routes, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return routes, nil
}
