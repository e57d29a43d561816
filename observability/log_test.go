package observability_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/slogtest"
	"time"

	"go.opentelemetry.io/otel/trace"

	"go.opentelemetry.io/otel/attribute"

	"github.com/sillar-go/sillar/observability"
)

func TestHandlerPassesSlogtest(t *testing.T) {
	var buf bytes.Buffer
	slogtest.Run(t, func(*testing.T) slog.Handler {
		buf.Reset()
		return observability.NewLogHandler(&buf, observability.LogConfig{})
	}, func(t *testing.T) map[string]any {
		m := map[string]any{}
		if err := json.Unmarshal(buf.Bytes(), &m); err != nil {
			t.Fatalf("%v: %s", err, buf.Bytes())
		}
		for ours, theirs := range map[string]string{"timestamp": "time", "message": "msg"} {
			if v, ok := m[ours]; ok {
				m[theirs] = v
				delete(m, ours)
			}
		}
		return m
	})
}

func traced() context.Context {
	ctx := observability.WithCorrelationID(context.Background(), "c-1")
	return trace.ContextWithSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1},
		SpanID: trace.SpanID{2}}))
}

func TestIDsAtTheRootOnce(t *testing.T) {
	var buf bytes.Buffer
	log := slog.New(observability.NewLogHandler(&buf, observability.LogConfig{Service: "orders"}))
	for name, l := range map[string]*slog.Logger{
		"plain": log, "with": log.With("a", 1), "group": log.WithGroup("g"), "group with": log.WithGroup("g").With("a",
			1).WithGroup("h"),
		"shadow":          log.With("trace_id", "evil", "level", "evil", "service", "evil"),
		"shadow in group": log.WithGroup("trace_id").With("trace_id", "inner"),
	} {
		buf.Reset()
		l.InfoContext(traced(), "hello\n\"x\"\u2028", "msg", "evil", "correlation_id", "evil",
			slog.Group("", slog.String("span_id", "evil")), slog.Group("level", slog.Int("x", 1)))
		dec := json.NewDecoder(&buf)
		seen := map[string]int{}
		if _, err := dec.Token(); err != nil {
			t.Fatal(err)
		}
		root := map[string]any{}
		for dec.More() {
			k, err := dec.Token()
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			var v any
			if err := dec.Decode(&v); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			seen[k.(string)]++
			root[k.(string)] = v
		}
		want := map[string]any{"level": "INFO", "message": "hello\n\"x\"\u2028", "service": "orders", "correlation_id": "c-1",
			"trace_id": "01000000000000000000000000000000", "span_id": "0200000000000000"}
		for k, v := range want {
			if seen[k] != 1 || root[k] != v {
				t.Errorf("%s: %s is %v, %d times", name, k, root[k], seen[k])
			}
		}
		if !strings.HasPrefix(fmt.Sprint(root["source"]), "observability/log_test.go:") {
			t.Errorf("%s: source %v", name, root["source"])
		}
	}
}

type bad struct{}

func (bad) MarshalJSON() ([]byte, error) { panic("no") }

func TestLogSurvivesOddValues(t *testing.T) {
	var buf bytes.Buffer
	log := slog.New(observability.NewLogHandler(&buf, observability.LogConfig{}))
	log.Info("\xff\x00", "bad", bad{}, "chan", make(chan int), "nil", nil, "err", errors.New("e"), "f", 1.5, "typed nil",
		(*bytes.Buffer)(nil), "k\n", "v")
	if !json.Valid(buf.Bytes()) {
		t.Errorf("not JSON: %s", buf.Bytes())
	}
}

// endless is a group of itself, twice.
type endless struct{}

func (endless) LogValue() slog.Value {
	return slog.GroupValue(slog.Any("x", endless{}), slog.Any("", endless{}))
}

// A value without an end costs its own text, and not the process its stack.
func TestLogSurvivesValuesWithoutEnd(t *testing.T) {
	loop, list := map[string]any{}, make([]any, 1)
	loop["loop"], list[0] = loop, list
	for name, cfg := range map[string]observability.LogConfig{
		"json": {}, "text": {Text: true},
		"replaced": {ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr { return a }},
	} {
		var buf bytes.Buffer
		log := slog.New(observability.NewLogHandler(&buf, cfg))
		log.With("with", endless{}).WithGroup("g").Info("m", "endless", endless{}, "loop", loop, "list", &list, "last", 7)
		if !strings.Contains(buf.String(), "last") || !strings.Contains(buf.String(), "!DEEP") ||
			!cfg.Text && !json.Valid(buf.Bytes()) {
			t.Errorf("%s: %.300s", name, buf.String())
		}
	}
}

// once is a writer that panics the first time.
type once struct {
	bytes.Buffer
	panicked bool
}

func (o *once) Write(p []byte) (int, error) {
	if !o.panicked {
		o.panicked = true
		panic("disk")
	}
	return o.Buffer.Write(p)
}

// A writer that panics once does not keep everybody from logging for ever.
func TestLogSurvivesItsWriter(t *testing.T) {
	out := &once{}
	log := slog.New(observability.NewLogHandler(out, observability.LogConfig{}))
	func() {
		defer func() { _ = recover() }()
		log.Info("first")
	}()
	reported := make(chan struct{})
	go func() { defer close(reported); log.Info("second") }()
	select {
	case <-reported:
	case <-time.After(30 * time.Second):
		t.Fatal("the second line waits for the first")
	}
	if !strings.Contains(out.String(), "second") {
		t.Error(out.String())
	}
}

func TestSecretNeverPrints(t *testing.T) {
	const hush = "hunter2-hush"
	s := observability.NewSecret(hush)
	type inner struct{ s observability.Secret[string] }
	type outer struct {
		S observability.Secret[string]
		P *observability.Secret[string]
		L []observability.Secret[string]
		M map[string]observability.Secret[string]
		I inner
		A any
	}
	o := outer{s, &s, []observability.Secret[string]{s}, map[string]observability.Secret[string]{"k": s}, inner{s}, s}
	var buf bytes.Buffer
	log := slog.New(observability.NewLogHandler(&buf, observability.LogConfig{}))
	for _, v := range []any{s, &s, o, &o, []any{o}, fmt.Errorf("wrap: %v", s), struct{ e error }{fmt.Errorf("%+v", o)}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%T"} {
			fmt.Fprintf(&buf, verb, v)
		}
		data, _ := json.Marshal(v)
		buf.Write(data)
		log.Info("x", "v", v, slog.Group("g", slog.Any("v", v)))
	}
	for _, kv := range []attribute.KeyValue{attribute.Stringer("k", s), attribute.String("k", fmt.Sprint(o)),
		attribute.StringSlice("k", []string{s.String()})} {
		fmt.Fprint(&buf, kv.Value.String())
	}
	if out := buf.String(); strings.Contains(out, hush) || strings.Contains(out, fmt.Sprintf("%x", hush)) {
		t.Errorf("printed: %s", out)
	}
	if s.Reveal() != hush {
		t.Error("lost")
	}
}

func TestLogAllocs(t *testing.T) {
	log := slog.New(observability.NewLogHandler(io.Discard, observability.LogConfig{Service: "orders"}))
	ctx := traced()
	if n := testing.AllocsPerRun(200, func() {
		log.LogAttrs(ctx, slog.LevelInfo, "hello", slog.String("a", "b"), slog.Int("n", 1))
	}); n > 1 {
		t.Errorf("%v allocations a line, want at most 1", n)
	}
}

var repeatedAttributes = map[string]struct {
	log  func(*slog.Logger)
	want string
}{
	"with, record": {func(l *slog.Logger) { l.With("a", 1, "b", 2).Info("m", "a", 3) }, `,"b":2,"a":3}`},
	"record":       {func(l *slog.Logger) { l.Info("m", "a", 1, "a", 22, "b", 3, "a", 4) }, `,"b":3,"a":4}`},
	"with twice":   {func(l *slog.Logger) { l.With("a", 1).With("a", 2).Info("m") }, `,"a":2}`},
	"same length": {func(l *slog.Logger) { l.With("a", 1).With("a", 2).With("b", 1).Info("m", "b", 3) },
		`,"a":2,"b":3}`},
	"in a group": {func(l *slog.Logger) { l.Info("m", slog.Group("g", "a", 1, "b", 2, "a", 3)) },
		`,"g":{"b":2,"a":3}}`},
	"group, only one": {func(l *slog.Logger) { l.Info("m", slog.Group("g", "a", 1, "a", 2)) }, `,"g":{"a":2}}`},
	"opened group": {func(l *slog.Logger) { l.WithGroup("g").With("a", 1, "c", 0).Info("m", "a", 2) },
		`,"g":{"c":0,"a":2}}`},
	"other objects": {func(l *slog.Logger) { l.With("a", 1).WithGroup("g").Info("m", "a", 2) },
		`,"a":1,"g":{"a":2}}`},
	"group over value": {func(l *slog.Logger) { l.With("g", 1, "a", 1).WithGroup("g").Info("m", "a", 2) },
		`,"a":1,"g":{"a":2}}`},
	"group over with": {func(l *slog.Logger) { l.With("g", 1).WithGroup("g").With("a", 1).Info("m", "a", 2) },
		`,"g":{"a":2}}`},
	"empty group":      {func(l *slog.Logger) { l.With("g", 1).WithGroup("g").Info("m") }, `,"g":1}`},
	"value over group": {func(l *slog.Logger) { l.With(slog.Group("g", "a", 1)).Info("m", "g", 2) }, `,"g":2}`},
	"inlined":          {func(l *slog.Logger) { l.Info("m", "a", 1, slog.Group("", "a", 2)) }, `,"a":2}`},
	"renamed":          {func(l *slog.Logger) { l.Info("m", "level_", 1, "level", 2) }, `,"level_":2}`},
	"first of an inner": {func(l *slog.Logger) {
		l.WithGroup("g").With("a", 1).With("b", 2).Info("m", "a", "x", "b", 3)
	}, `,"g":{"a":"x","b":3}}`},
	"more than 16": {func(l *slog.Logger) {
		for range 20 {
			l = l.With("a", 1, "b", 2)
		}
		l.Info("m", "c", 3, "b", 4)
	}, `,"a":1,"c":3,"b":4}`},
}

// A name comes once in an object, as parsers disagree about others. The last value is kept, as a later With is meant.
func TestAttributesWithOneName(t *testing.T) {
	for name, c := range repeatedAttributes {
		var line bytes.Buffer
		c.log(slog.New(observability.NewLogHandler(&line, observability.LogConfig{})))
		_, got, _ := strings.Cut(line.String(), `,"source":`)
		_, got, _ = strings.Cut(got, `"`)
		_, got, _ = strings.Cut(got, `"`)
		if got = strings.TrimSuffix(got, "\n"); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// A handler that was derived does not change the one it came from.
func TestAttributesWithOneNameSpareTheParent(t *testing.T) {
	var line bytes.Buffer
	parent := slog.New(observability.NewLogHandler(&line, observability.LogConfig{})).With("a", 1, "b", 2)
	parent.With("a", 333)
	parent.Info("m", "b", 4)
	parent.Info("m")
	if got := line.String(); strings.Count(got, `"a":1,"b":4}`) != 1 || strings.Count(got, `"a":1,"b":2}`) != 1 {
		t.Error(got)
	}
}
