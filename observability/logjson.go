package observability

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

// fixedField reports whether a name at the root belongs to the handler.
func fixedField(name string) bool {
	switch name {
	case "timestamp", "time", "level", "message", "msg", "service", "correlation_id", "trace_id", "span_id", "source":
		return true
	}
	return false
}

// appendOpen opens a group. A comma is set by what comes before: nothing after `{`.
func appendOpen(b []byte, name string) []byte {
	b = appendKey(b, name)
	return append(b, '{')
}

func appendClose(b []byte, n int) []byte {
	for range n {
		b = append(b, '}')
	}
	return b
}

func appendKey(b []byte, name string) []byte {
	if n := len(b); n > 0 && b[n-1] != '{' {
		b = append(b, ',')
	}
	if n := len(b); n == 0 { // the start of preformatted attributes, which follow the fixed fields
		b = append(b, ',')
	}
	return append(appendString(b, name), ':')
}

// An object is what has been written of a JSON object. When attributes share a name, it keeps the last: parsers
// disagree about repeated names (RFC 8259, section 4).
type object struct {
	root   bool // the line itself, whose fixed names are taken
	wrote  bool
	depth  int // of the groups around
	fields []field
}

// field is an attribute in a buffer, with the comma before it where there is one.
type field struct {
	name     string
	from, to int
}

// maxDepth is how deep groups nest. A LogValuer may return a group that has the LogValuer in it.
const (
	maxDepth = 10
	tooDeep  = "!DEEP: more than 10 groups"
)

func (o *object) append(b []byte, a slog.Attr) []byte {
	a.Value = a.Value.Resolve()
	if a.Equal(slog.Attr{}) {
		return b
	}
	group := a.Value.Kind() == slog.KindGroup
	if group && o.depth == maxDepth {
		a.Value, group = slog.StringValue(tooDeep), false
	}
	if group && a.Key == "" { // its attributes belong to the parent
		o.depth++
		for _, x := range a.Value.Group() {
			b = o.append(b, x)
		}
		o.depth--
		return b
	}
	if o.root && fixedField(a.Key) {
		a.Key += "_"
	}
	before := len(b)
	if !group {
		return o.keep(appendValue(appendKey(b, a.Key), a.Value), a.Key, before)
	}
	inner := object{depth: o.depth + 1}
	b = appendOpen(b, a.Key)
	for _, x := range a.Value.Group() {
		b = inner.append(b, x)
	}
	if !inner.wrote {
		return b[:before]
	}
	return o.keep(append(b, '}'), a.Key, before)
}

// keep notes the field that ends b, and cuts out the one that had its name.
func (o *object) keep(b []byte, name string, from int) []byte {
	o.wrote = true
	for i, old := range o.fields {
		if old.name != name {
			continue
		}
		o.fields = slices.Delete(o.fields, i, i+1)
		if b[old.from] != ',' {
			old.to++ // the first field has no comma: it takes that of the next
		}
		n := old.to - old.from
		b = slices.Delete(b, old.from, old.to)
		for j := i; j < len(o.fields); j++ {
			f := &o.fields[j]
			f.from, f.to = max(f.from-n, old.from), f.to-n
		}
		from = max(from-n, old.from)
		break
	}
	o.fields = append(o.fields, field{name, from, len(b)})
	return b
}

func appendValue(b []byte, v slog.Value) []byte {
	switch v.Kind() {
	case slog.KindString:
		return appendString(b, v.String())
	case slog.KindInt64:
		return strconv.AppendInt(b, v.Int64(), 10)
	case slog.KindUint64:
		return strconv.AppendUint(b, v.Uint64(), 10)
	case slog.KindBool:
		return strconv.AppendBool(b, v.Bool())
	case slog.KindFloat64:
		f := v.Float64()
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return appendString(b, strconv.FormatFloat(f, 'g', -1, 64))
		}
		return strconv.AppendFloat(b, f, 'g', -1, 64)
	case slog.KindDuration:
		return appendString(b, v.Duration().String())
	case slog.KindTime:
		b = append(b, '"')
		b = v.Time().AppendFormat(b, time.RFC3339Nano)
		return append(b, '"')
	}
	return appendAny(b, v.Any())
}

// appendAny writes values of other types, and survives those whose methods panic.
func appendAny(b []byte, v any) (out []byte) {
	before := len(b)
	defer func() {
		if p := recover(); p != nil {
			out = appendString(b[:before], fmt.Sprintf("!PANIC: %v", p))
		}
	}()
	_, marshals := v.(json.Marshaler)
	if err, ok := v.(error); ok && !marshals {
		return appendString(b, err.Error())
	}
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return appendString(b, "!ERROR: "+err.Error())
	}
	return append(b, bytes.TrimSuffix(text.Bytes(), []byte("\n"))...)
}

const hexDigits = "0123456789abcdef"

func appendHex(b, src []byte) []byte {
	for _, c := range src {
		b = append(b, hexDigits[c>>4], hexDigits[c&15])
	}
	return b
}

// plain are the bytes that a JSON string has as they are.
var plain = func() (t [256]bool) {
	for c := ' '; c < 0x7f; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// appendString writes a JSON string. What is not UTF-8 becomes U+FFFD.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if plain[c] {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && size == 1 {
				b = append(append(b, s[start:i]...), `\ufffd`...)
				start = i + 1
			} else if r == '\u2028' || r == '\u2029' { // line ends to JavaScript
				b = append(append(b, s[start:i]...), `\u202`...)
				b = append(b, hexDigits[r&15])
				start = i + size
			}
			i += size
			continue
		}
		b = append(b, s[start:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\t':
			b = append(b, '\\', 't')
		case '\r':
			b = append(b, '\\', 'r')
		default:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		start = i
	}
	return append(append(b, s[start:]...), '"')
}
