package gatewayyaml

import (
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

// checkDurations returns an *Error for the first value below n that is to be a duration, by t, and is none. The YAML
// package does not say where a value is that it cannot read as one.
func checkDurations(n ast.Node, t reflect.Type, anchors map[string]ast.Node) error {
	switch v := n.(type) {
	case *ast.AnchorNode:
		n = v.Value
		anchors[v.Name.String()] = n
	case *ast.AliasNode:
		if n = anchors[v.Value.String()]; n == nil {
			return nil
		}
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == reflect.TypeFor[time.Duration]() {
		at := n.GetToken()
		if _, err := parseDuration(at.Value); err != nil {
			return &Error{Line: at.Position.Line, Column: at.Position.Column, Err: err}
		}
		return nil
	}
	switch t.Kind() {
	case reflect.Struct:
		fields := fieldsOf(t)
		for key, value := range pairs(n) {
			if f, ok := fields[key.String()]; ok {
				if err := checkDurations(value, f.Type, anchors); err != nil {
					return err
				}
			}
		}
	case reflect.Slice:
		if list, ok := n.(*ast.SequenceNode); ok {
			for _, value := range list.Values {
				if err := checkDurations(value, t.Elem(), anchors); err != nil {
					return err
				}
			}
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
