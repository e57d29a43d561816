package observability_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/slogtest"
	"time"

	"github.com/sillar-go/sillar/observability"
)

func TestTextLogHasTheFieldsOfTheJSONLog(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(observability.NewLogHandler(&out, observability.LogConfig{Service: "orders", Text: true}))
	ctx := observability.WithCorrelationID(t.Context(), "id-1")
	log.With("user", 1).WithGroup("g").InfoContext(ctx, "order placed", "a", "x y", "level", 2, "empty", "",
		"took", time.Second, "err", errors.New("bad\nline"), slog.Group("in", "k", true))
	log.With("user", 1).InfoContext(ctx, "m", "user", 2, "trace_id", "mine")
	first, second, _ := strings.Cut(out.String(), "\n")
	for _, want := range []string{
		"level=INFO message=\"order placed\" service=orders correlation_id=id-1 source=observability/logtext_test.go:",
		` user=1 g.a="x y" g.level=2 g.empty="" g.took=1s g.err="bad\nline" g.in.k=true`,
	} {
		if !strings.Contains(first, want) {
			t.Errorf("got  %s\nwant %s in it", first, want)
		}
	}
	if !strings.HasPrefix(first, "timestamp=2") {
		t.Errorf("the line does not begin with the time: %s", first)
	}
	if !strings.HasSuffix(second, " user=2 trace_id_=mine\n") {
		t.Errorf("got %s, want each name once, and none of the handler's", second)
	}
}

type shy struct{}

func (shy) String() string { panic("shy") }

func TestTextLogSurvivesValuesThatPanic(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(observability.NewLogHandler(&out, observability.LogConfig{Text: true}))
	log.Info("m", "v", shy{}, "secret", observability.NewSecret("hidden"))
	if got := out.String(); !strings.Contains(got, "PANIC") || strings.Contains(got, "hidden") {
		t.Errorf("got %s, want the panic and no secret", got)
	}
}

func TestReplaceAttrSeesAllFields(t *testing.T) {
	var out bytes.Buffer
	var groups []string
	log := slog.New(observability.NewLogHandler(&out, observability.LogConfig{
		Service: "orders",
		ReplaceAttr: func(g []string, a slog.Attr) slog.Attr {
			switch {
			case len(g) == 0 && a.Key == "timestamp":
				return slog.Attr{}
			case len(g) == 0 && a.Key == "level":
				return slog.String("severity", strings.ToLower(a.Value.String()))
			case a.Key == "password":
				groups = g
				return slog.String(a.Key, "***")
			}
			return a
		},
	}))
	log.WithGroup("req").With("id", 1).Warn("m", slog.Group("body", "password", "x"), "took", time.Second)
	var line map[string]any
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	req, _ := line["req"].(map[string]any)
	body, _ := req["body"].(map[string]any)
	if line["severity"] != "warn" || line["level"] != nil || line["timestamp"] != nil || line["message"] != "m" {
		t.Errorf("the fixed fields are %v", line)
	}
	if req["id"] != 1.0 || req["took"] != "1s" || body["password"] != "***" {
		t.Errorf("the attributes are %v", req)
	}
	if strings.Join(groups, ".") != "req.body" {
		t.Errorf("ReplaceAttr got the groups %v, want req and body", groups)
	}
}

func TestReplaceAttrHandlerPassesSlogtest(t *testing.T) {
	var out bytes.Buffer
	slogtest.Run(t, func(*testing.T) slog.Handler {
		out.Reset()
		return observability.NewLogHandler(&out, observability.LogConfig{ReplaceAttr: func(_ []string,
			a slog.Attr) slog.Attr {
			switch a.Key { // as slogtest wants them
			case "timestamp":
				a.Key = slog.TimeKey
			case "message":
				a.Key = slog.MessageKey
			}
			return a
		}})
	}, func(t *testing.T) map[string]any {
		line := map[string]any{}
		if err := json.Unmarshal(out.Bytes(), &line); err != nil {
			t.Fatalf("%v: %s", err, out.String())
		}
		return line
	})
}

func TestConfigPassesTheLogFormatOn(t *testing.T) {
	tel, log := newTel(t, func(c *observability.Config) {
		c.LogText = true
		c.LogReplaceAttr = func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == "timestamp" {
				return slog.Attr{}
			}
			return a
		}
	})
	tel.Logger.LogAttrs(context.Background(), slog.LevelInfo, "m")
	if got := log.String(); !strings.HasPrefix(got, "level=INFO message=m service=orders source=") {
		t.Errorf("got %s", got)
	}
}
