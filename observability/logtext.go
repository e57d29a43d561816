package observability

import (
	"context"
	"encoding"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"go.opentelemetry.io/otel/trace"

	"github.com/sillar-go/sillar/internal/correlation"
)

// attrHandler makes a list of all attributes of a line before it writes it: for the text format and for ReplaceAttr,
// which may change any of them.
type attrHandler struct {
	out   *output
	cfg   LogConfig
	added []addition // by With and WithGroup, in order
}

// addition is a group that was opened, or attributes that were added.
type addition struct {
	group string
	attrs []slog.Attr
}

func newAttrHandler(w io.Writer, cfg LogConfig) *attrHandler {
	if cfg.Level == nil {
		cfg.Level = slog.LevelInfo
	}
	return &attrHandler{out: &output{w: w}, cfg: cfg}
}

// Enabled implements slog.Handler.
func (h *attrHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.cfg.Level.Level() }

// AddsCorrelationID is that of logHandler.
func (h *attrHandler) AddsCorrelationID() bool { return true }

// WithAttrs implements slog.Handler.
func (h *attrHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return h.with(addition{attrs: attrs}, len(attrs) > 0)
}

// WithGroup implements slog.Handler.
func (h *attrHandler) WithGroup(name string) slog.Handler {
	return h.with(addition{group: name}, name != "")
}

func (h *attrHandler) with(a addition, some bool) slog.Handler {
	if !some {
		return h
	}
	n := *h
	n.added = append(slices.Clip(h.added), a)
	return &n
}

// Handle implements slog.Handler.
func (h *attrHandler) Handle(ctx context.Context, r slog.Record) error {
	attrs := make([]slog.Attr, 0, r.NumAttrs()+8)
	r.Attrs(func(a slog.Attr) bool {
		attrs = append(attrs, a)
		return true
	})
	for _, a := range slices.Backward(h.added) {
		if a.group != "" {
			attrs = []slog.Attr{{Key: a.group, Value: slog.GroupValue(attrs...)}}
		} else {
			attrs = slices.Concat(a.attrs, attrs)
		}
	}
	attrs = append(h.fixed(ctx, r), rename(resolved(attrs, 0))...)
	if h.cfg.ReplaceAttr != nil {
		attrs = h.replace(nil, attrs)
	}
	if h.cfg.Text {
		return h.out.write(appendText(nil, attrs))
	}
	o, b := object{}, []byte{'{'}
	for _, a := range attrs {
		b = o.append(b, a)
	}
	return h.out.write(append(b, '}', '\n'))
}

// fixed returns the fixed fields.
func (h *attrHandler) fixed(ctx context.Context, r slog.Record) []slog.Attr {
	var attrs []slog.Attr
	if !r.Time.IsZero() {
		attrs = append(attrs, slog.Time("timestamp", r.Time.UTC()))
	}
	attrs = append(attrs, slog.Any("level", r.Level), slog.String("message", r.Message))
	if h.cfg.Service != "" {
		attrs = append(attrs, slog.String("service", h.cfg.Service))
	}
	if id := correlation.From(ctx); id != "" {
		attrs = append(attrs, slog.String("correlation_id", id))
	}
	if sc := trace.SpanContextFromContext(ctx); sc.IsValid() {
		attrs = append(attrs, slog.String("trace_id", sc.TraceID().String()), slog.String("span_id", sc.SpanID().String()))
	}
	if r.PC != 0 {
		attrs = append(attrs, slog.String("source", source(r.PC)))
	}
	return attrs
}

// resolved returns attributes without LogValuers, and without groups that nest deeper than maxDepth.
func resolved(attrs []slog.Attr, depth int) []slog.Attr {
	out := slices.Clone(attrs)
	for i := range out {
		v := out[i].Value.Resolve()
		switch {
		case v.Kind() == slog.KindGroup && depth == maxDepth:
			v = slog.StringValue(tooDeep)
		case v.Kind() == slog.KindGroup:
			v = slog.GroupValue(resolved(v.Group(), depth+1)...)
		}
		out[i].Value = v
	}
	return out
}

// rename puts a _ behind the names at the root that belong to the handler.
func rename(attrs []slog.Attr) []slog.Attr {
	out := make([]slog.Attr, 0, len(attrs))
	for _, a := range attrs {
		if a.Key == "" && a.Value.Kind() == slog.KindGroup {
			out = append(out, rename(a.Value.Group())...)
			continue
		}
		if fixedField(a.Key) {
			a.Key += "_"
		}
		out = append(out, a)
	}
	return out
}

// replace calls ReplaceAttr as slog does: for the attributes of groups, not for the groups.
func (h *attrHandler) replace(groups []string, attrs []slog.Attr) []slog.Attr {
	out := make([]slog.Attr, 0, len(attrs))
	for _, a := range attrs {
		if a.Value.Kind() == slog.KindGroup {
			inner := groups
			if a.Key != "" {
				inner = append(slices.Clip(groups), a.Key)
			}
			a.Value = slog.GroupValue(h.replace(inner, a.Value.Group())...)
		} else if !a.Equal(slog.Attr{}) {
			a = h.cfg.ReplaceAttr(groups, a)
		}
		if !a.Equal(slog.Attr{}) {
			out = append(out, a)
		}
	}
	return out
}

// appendText writes key=value pairs and a line end. The keys of groups are joined by dots. When pairs share a key, the
// last is kept.
func appendText(b []byte, attrs []slog.Attr) []byte {
	type pair struct{ key, value string }
	var pairs []pair
	var flatten func(prefix string, attrs []slog.Attr)
	flatten = func(prefix string, attrs []slog.Attr) {
		for _, a := range attrs {
			a.Value = a.Value.Resolve() // of ReplaceAttr
			switch {
			case a.Equal(slog.Attr{}):
			case a.Value.Kind() == slog.KindGroup && a.Key == "":
				flatten(prefix, a.Value.Group())
			case a.Value.Kind() == slog.KindGroup:
				flatten(prefix+a.Key+".", a.Value.Group())
			default:
				key := prefix + a.Key
				pairs = slices.DeleteFunc(pairs, func(p pair) bool { return p.key == key })
				pairs = append(pairs, pair{key, textValue(a.Value)})
			}
		}
	}
	flatten("", attrs)
	for i, p := range pairs {
		if i > 0 {
			b = append(b, ' ')
		}
		b = append(append(append(b, quoted(p.key)...), '='), quoted(p.value)...)
	}
	return append(b, '\n')
}

// textValue writes a value, and survives those whose methods panic.
func textValue(v slog.Value) (text string) {
	defer func() {
		if p := recover(); p != nil {
			text = fmt.Sprintf("!PANIC: %v", p)
		}
	}()
	switch v.Kind() {
	case slog.KindTime:
		return v.Time().Format(time.RFC3339Nano)
	case slog.KindAny:
		if m, ok := v.Any().(encoding.TextMarshaler); ok {
			if b, err := m.MarshalText(); err == nil {
				return string(b)
			}
		}
		r := reflect.ValueOf(v.Any())
		if r.Kind() == reflect.Pointer { // package fmt follows no other
			r = r.Elem()
		}
		if nests(r, 100) {
			return "!DEEP: more than 100 values in one another"
		}
		return fmt.Sprintf("%+v", v.Any())
	}
	return v.String()
}

// nests reports whether n values are in one another, as they are where a map or a slice has itself in it. Package fmt
// would write them until the stack overflows.
func nests(v reflect.Value, n int) bool {
	if n == 0 {
		return true
	}
	switch v.Kind() {
	case reflect.Interface:
		return nests(v.Elem(), n-1)
	case reflect.Struct:
		for _, f := range v.Fields() {
			if nests(f, n-1) {
				return true
			}
		}
	case reflect.Map:
		for i := v.MapRange(); i.Next(); {
			if nests(i.Key(), n-1) || nests(i.Value(), n-1) {
				return true
			}
		}
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() <= reflect.Complex128 {
			return false // as bytes
		}
		for i := range v.Len() {
			if nests(v.Index(i), n-1) {
				return true
			}
		}
	}
	return false
}

// quoted quotes what would not be one word, or not one line.
func quoted(s string) string {
	plain := func(r rune) bool {
		return r != '=' && r != '"' && r != ' ' && r != utf8.RuneError && unicode.IsPrint(r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return strconv.Quote(s)
}
