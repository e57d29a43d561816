package gatewayyaml

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// parseDuration reads one with a unit, such as 1.5s; -1 is off.
func parseDuration(s string) (time.Duration, error) {
	if s == "-1" {
		return -1, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || s == "0" {
		return 0, fmt.Errorf("%q is no duration such as 1.5s", s)
	}
	return d, nil
}

// checkValues returns an *Error for the first value below n that is not of the type t. The YAML package does not say
// where a value is that it cannot read as a duration; and it would read 1.5 as the whole number 1, and a key without
// a value as one that is not there: "roles:" would let every caller in that has a token.
func checkValues(n ast.Node, t reflect.Type, anchors map[string]ast.Node) error {
	if a, ok := n.(*ast.AnchorNode); ok {
		err := checkValues(a.Value, t, anchors)
		anchors[a.Name.String()] = a.Value // not before: an alias in it would never end
		return err
	}
	n = resolved(n, anchors)
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if want := mismatch(n, t); want != nil {
		at := n.GetToken().Position
		return &Error{Line: at.Line, Column: at.Column, Err: want}
	}
	switch t.Kind() {
	case reflect.Struct:
		fields := fieldsOf(t)
		for key, value := range pairs(n) {
			of := fields[key.String()].Type
			if _, merges := key.(*ast.MergeKeyNode); merges {
				of = t
			}
			if of == nil {
				continue // the decoder refuses it
			}
			if err := checkValues(value, of, anchors); err != nil {
				return err
			}
		}
	case reflect.Map:
		for _, value := range pairs(n) {
			if err := checkValues(value, t.Elem(), anchors); err != nil {
				return err
			}
		}
	case reflect.Slice:
		if list, ok := n.(*ast.SequenceNode); ok {
			for _, value := range list.Values {
				if err := checkValues(value, t.Elem(), anchors); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// resolved is the value that an alias or a tag stands for.
func resolved(n ast.Node, anchors map[string]ast.Node) ast.Node {
	switch v := n.(type) {
	case *ast.AliasNode:
		if to := anchors[v.Value.String()]; to != nil {
			return resolved(to, anchors)
		}
	case *ast.TagNode:
		return resolved(v.Value, anchors)
	}
	return n
}

// mismatch says what a single value should have been.
func mismatch(n ast.Node, t reflect.Type) error {
	switch n.(type) {
	case *ast.AliasNode:
		return errors.New("an alias without an anchor before it, or within what it stands for")
	case *ast.NullNode:
		return errors.New("want a value: without the key the default holds")
	}
	if t == reflect.TypeFor[time.Duration]() {
		_, err := parseDuration(n.GetToken().Value)
		return err
	}
	_, whole := n.(*ast.IntegerNode)
	switch t.Kind() {
	case reflect.String:
		_, text := n.(*ast.StringNode)
		_, block := n.(*ast.LiteralNode)
		if !text && !block {
			return errors.New("want a text, in quotes if it looks like something else")
		}
	case reflect.Bool:
		if _, ok := n.(*ast.BoolNode); !ok {
			return errors.New("want true or false")
		}
	case reflect.Int, reflect.Int64:
		if !whole {
			return errors.New("want a whole number")
		}
	case reflect.Float64:
		if _, ok := n.(*ast.FloatNode); !ok && !whole {
			return errors.New("want a number")
		}
	}
	return nil
}

// fieldsOf returns the fields of a struct by their keys, those of embedded ones too.
func fieldsOf(t reflect.Type) map[string]reflect.StructField {
	all := map[string]reflect.StructField{}
	for f := range t.Fields() {
		tag := f.Tag.Get("yaml")
		if tag == "" {
			tag = f.Tag.Get("json")
		}
		name, options, _ := strings.Cut(tag, ",")
		switch {
		case options == "inline":
			for name, f := range fieldsOf(f.Type) {
				if _, ok := all[name]; !ok {
					all[name] = f
				}
			}
		case name != "-" && name != "":
			all[name] = f
		}
	}
	return all
}
