package observability

import (
	"slices"
	"strings"
	"unicode/utf8"

	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// validSpan is a span whose text is UTF-8. Paths and errors have bytes that clients send; OTLP allows nothing else than
// UTF-8, and exporters lose a whole batch for one span that has it not.
type validSpan struct {
	sdktrace.ReadOnlySpan
	name   string
	attrs  []attribute.KeyValue
	events []sdktrace.Event
	links  []sdktrace.Link
	status sdktrace.Status
}

func (s *validSpan) Name() string                     { return s.name }
func (s *validSpan) Attributes() []attribute.KeyValue { return s.attrs }
func (s *validSpan) Events() []sdktrace.Event         { return s.events }
func (s *validSpan) Links() []sdktrace.Link           { return s.links }
func (s *validSpan) Status() sdktrace.Status          { return s.status }

// withValidText returns s, or a copy in which U+FFFD replaces what is no UTF-8.
func withValidText(s sdktrace.ReadOnlySpan) sdktrace.ReadOnlySpan {
	if utf8.ValidString(s.Name()) && utf8.ValidString(s.Status().Description) && isValid(s.Attributes()) &&
		!slices.ContainsFunc(s.Events(), func(e sdktrace.Event) bool {
			return !utf8.ValidString(e.Name) || !isValid(e.Attributes)
		}) &&
		!slices.ContainsFunc(s.Links(), func(l sdktrace.Link) bool { return !isValid(l.Attributes) }) {
		return s
	}
	v := &validSpan{ReadOnlySpan: s, name: validText(s.Name()), attrs: validAttributes(s.Attributes()),
		events: slices.Clone(s.Events()), links: slices.Clone(s.Links()), status: s.Status()}
	v.status.Description = validText(v.status.Description)
	for i := range v.events {
		v.events[i].Name = validText(v.events[i].Name)
		v.events[i].Attributes = validAttributes(v.events[i].Attributes)
	}
	for i := range v.links {
		v.links[i].Attributes = validAttributes(v.links[i].Attributes)
	}
	return v
}

func validText(s string) string { return strings.ToValidUTF8(s, string(utf8.RuneError)) }

// isValid reports whether all text of attributes is UTF-8.
func isValid(attrs []attribute.KeyValue) bool {
	return !slices.ContainsFunc(attrs, func(a attribute.KeyValue) bool {
		switch a.Value.Type() {
		case attribute.STRING:
			return !utf8.ValidString(a.Value.AsString()) || !utf8.ValidString(string(a.Key))
		case attribute.STRINGSLICE:
			return !utf8.ValidString(string(a.Key)) ||
				slices.ContainsFunc(a.Value.AsStringSlice(), func(s string) bool { return !utf8.ValidString(s) })
		}
		return !utf8.ValidString(string(a.Key))
	})
}

func validAttributes(attrs []attribute.KeyValue) []attribute.KeyValue {
	out := slices.Clone(attrs)
	for i, a := range out {
		out[i].Key = attribute.Key(validText(string(a.Key)))
		switch a.Value.Type() {
		case attribute.STRING:
			out[i].Value = attribute.StringValue(validText(a.Value.AsString()))
		case attribute.STRINGSLICE:
			texts := a.Value.AsStringSlice()
			for n := range texts {
				texts[n] = validText(texts[n])
			}
			out[i].Value = attribute.StringSliceValue(texts)
		}
	}
	return out
}
