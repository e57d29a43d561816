package observability

import (
	"context"
	"io"
	"log/slog"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"go.opentelemetry.io/otel/trace"

	"github.com/sillar-go/sillar/internal/correlation"
)

// LogConfig tunes a log handler. The zero LogConfig is useful.
type LogConfig struct {
	// Service is in every line. Default none.
	Service string
	// Level is the least level that is logged. Default Info.
	Level slog.Leveler
	// Text writes key=value lines, as slog.TextHandler does, with the fields of the JSON lines. For terminals: a line
	// takes a few microseconds and allocations. Default JSON.
	Text bool
	// ReplaceAttr changes, renames or removes attributes, as that of slog.HandlerOptions. It sees the fixed fields too,
	// under their names and with nil groups. With it a line takes a few microseconds and allocations. Default none.
	ReplaceAttr func(groups []string, a slog.Attr) slog.Attr
}

// logHandler writes JSON lines. The fixed fields come first and stand at the root; what With, WithGroup and the record
// add follows, and cannot take their names.
type logHandler struct {
	out     *output
	clock   *clock
	level   slog.Leveler
	service []byte   // `,"service":"..."`, or empty
	pre     []byte   // attributes of With, encoded, and the groups opened for them
	fields  []field  // those of the innermost object in pre
	open    int      // how many groups pre has opened
	groups  []string // groups that wait for their first attribute
}

type output struct {
	mu sync.Mutex
	w  io.Writer
}

// write writes a line. A writer that panics keeps no lock.
func (o *output) write(line []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, err := o.w.Write(line)
	return err
}

// NewLogHandler returns a slog.Handler that writes JSON lines with the fields timestamp, level, message, service,
// correlation_id, trace_id, span_id, source, and then the rest. An attribute at the root with one of these names gets
// a _ behind it. When attributes of one object have the same name, the last is kept.
func NewLogHandler(w io.Writer, cfg LogConfig) slog.Handler {
	if cfg.Text || cfg.ReplaceAttr != nil {
		return newAttrHandler(w, cfg)
	}
	h := &logHandler{out: &output{w: w}, clock: &clock{}, level: cfg.Level}
	if h.level == nil {
		h.level = slog.LevelInfo
	}
	if cfg.Service != "" {
		h.service = appendString([]byte(`,"service":`), cfg.Service)
	}
	return h
}

// Enabled implements slog.Handler.
func (h *logHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

// AddsCorrelationID says that a handler adds the correlation id of the context, so that callers need not.
func (h *logHandler) AddsCorrelationID() bool { return true }

// buffer is what a line needs while it is written.
type buffer struct {
	line   []byte
	fields []field
}

var buffers = sync.Pool{New: func() any { return &buffer{make([]byte, 0, 1024), make([]field, 0, 16)} }}

// maxKept bounds the buffers that wait for the next line.
const maxKept = 16 << 10

// Handle implements slog.Handler.
func (h *logHandler) Handle(ctx context.Context, r slog.Record) error {
	buf := buffers.Get().(*buffer)
	b := h.head(ctx, buf.line[:0], r)
	head := len(b)
	b = append(b, h.pre...)
	before := len(b)
	for _, g := range h.groups {
		b = appendOpen(b, g)
	}
	object := object{root: h.open == 0 && len(h.groups) == 0, fields: buf.fields[:0]}
	if len(h.groups) == 0 {
		object.fields = appendShifted(object.fields, h.fields, head)
	}
	r.Attrs(func(a slog.Attr) bool {
		b = object.append(b, a)
		return true
	})
	if !object.wrote { // groups without content are left out
		b = b[:before]
	} else {
		b = appendClose(b, len(h.groups))
		b = h.overtake(b, head)
	}
	b = appendClose(b, h.open)
	b = append(b, '}', '\n')
	err := h.out.write(b)
	if cap(b) <= maxKept {
		clear(object.fields) // they hold names
		buf.line, buf.fields = b, object.fields
		buffers.Put(buf)
	}
	return err
}

// overtake cuts out the attribute whose name the outermost of h.groups has taken. What h.pre holds begins at head.
func (h *logHandler) overtake(b []byte, head int) []byte {
	if len(h.groups) == 0 || !slices.ContainsFunc(h.fields, func(f field) bool { return f.name == h.groups[0] }) {
		return b
	}
	parent := object{fields: appendShifted(nil, h.fields, head)}
	return parent.keep(b, h.groups[0], head+len(h.pre))
}

func appendShifted(to, fields []field, by int) []field {
	for _, f := range fields {
		to = append(to, field{f.name, f.from + by, f.to + by})
	}
	return to
}

// head writes the fixed fields.
func (h *logHandler) head(ctx context.Context, b []byte, r slog.Record) []byte {
	b = append(b, '{')
	if !r.Time.IsZero() {
		b = append(b, `"timestamp":"`...)
		b = h.clock.append(b, r.Time)
		b = append(b, `",`...)
	}
	b = append(b, `"level":"`...)
	b = append(b, r.Level.String()...)
	b = append(b, `","message":`...)
	b = appendString(b, r.Message)
	b = append(b, h.service...)
	if id := correlation.From(ctx); id != "" {
		b = appendString(append(b, `,"correlation_id":`...), id)
	}
	if sc := trace.SpanContextFromContext(ctx); sc.IsValid() {
		tid, sid := sc.TraceID(), sc.SpanID()
		b = appendHex(append(b, `,"trace_id":"`...), tid[:])
		b = appendHex(append(b, `","span_id":"`...), sid[:])
		b = append(b, '"')
	}
	if r.PC != 0 {
		b = appendString(append(b, `,"source":`...), source(r.PC))
	}
	return b
}

// WithAttrs implements slog.Handler.
func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	n := *h
	n.pre = slices.Clone(h.pre)
	for _, g := range h.groups {
		n.pre = appendOpen(n.pre, g)
	}
	object := object{root: h.open == 0 && len(h.groups) == 0}
	if len(h.groups) == 0 {
		object.fields = slices.Clone(h.fields)
	}
	for _, a := range attrs {
		n.pre = object.append(n.pre, a)
	}
	if !object.wrote {
		return h
	}
	written := len(n.pre)
	n.pre = h.overtake(n.pre, 0)
	n.fields = appendShifted(nil, object.fields, len(n.pre)-written)
	n.open, n.groups = h.open+len(h.groups), nil
	return &n
}

// WithGroup implements slog.Handler.
func (h *logHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	if h.open == 0 && len(h.groups) == 0 && fixedField(name) {
		name += "_"
	}
	n := *h
	n.groups = append(slices.Clip(h.groups), name)
	return &n
}

// sources remembers where a program counter lies: there are only as many as the program has log calls.
var sources sync.Map // uintptr -> string

// source returns folder/file.go:line.
func source(pc uintptr) string {
	if s, ok := sources.Load(pc); ok {
		return s.(string)
	}
	f, _ := runtime.CallersFrames([]uintptr{pc}).Next()
	file := f.File
	if i := strings.LastIndexByte(file, '/'); i > 0 {
		file = file[strings.LastIndexByte(file[:i], '/')+1:]
	}
	s := file + ":" + strconv.Itoa(f.Line)
	sources.Store(pc, s)
	return s
}
