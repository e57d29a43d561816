package live

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
)

// Bounds of the log that is kept.
const (
	keptLines = 4000
	keptBytes = 2 << 10 // of a line; what is longer is not shown
)

// journal keeps the last lines of the log. It takes one line a Write, as slog handlers write, and parses a line only
// for viewers.
type journal struct {
	mu    sync.Mutex
	lines [keptLines][]byte
	next  uint64 // the number of the line to come
}

// Write implements io.Writer. It never fails.
func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	line := &j.lines[j.next%keptLines]
	*line = append((*line)[:0], p[:min(len(p), keptBytes)]...)
	j.next++
	return len(p), nil
}

// teeWriter writes the log where it goes, and into the journal.
type teeWriter struct {
	out     io.Writer
	journal *journal
}

// Write implements io.Writer.
func (t teeWriter) Write(p []byte) (int, error) {
	_, _ = t.journal.Write(p)
	return t.out.Write(p)
}

// since returns up to limit of the newest lines from number from on that hold what is asked for, oldest first, and the
// number to go on from.
func (j *journal) since(from uint64, correlation string, limit int) (out [][]byte, next uint64) {
	want := []byte(`"correlation_id":"` + correlation + `"`)
	j.mu.Lock()
	defer j.mu.Unlock()
	for n := j.next; n > from && n+keptLines > j.next && len(out) < limit; n-- {
		line := j.lines[(n-1)%keptLines]
		if correlation == "" || bytes.Contains(line, want) {
			out = append(out, bytes.Clone(line))
		}
	}
	slices.Reverse(out)
	return out, j.next
}

// entry is a line of the log, as it is shown.
type entry struct {
	Time, Level, Service, Message, Detail, Correlation string
}

// detail are the fields that are shown, in this order.
var detail = []string{"method", "path", "status", "duration_ms", "saga", "step", "attempt", "topic", "event", "breaker",
	"from", "to", "peer", "group", "outbox", "outcome", "cause", "error"}

// readEntry understands a line, or says that there is nothing to show.
func readEntry(line []byte) (e entry, ok bool) {
	var fields map[string]any
	if json.Unmarshal(line, &fields) != nil {
		return e, false
	}
	text := func(name string) string { s, _ := fields[name].(string); return s }
	e = entry{Level: text("level"), Service: text("service"), Message: text("message"),
		Correlation: text("correlation_id")}
	if e.Message == "gateway: request" || e.Message == "request" &&
		(text("path") == "/" || strings.HasPrefix(text("path"), "/live/")) {
		return e, false // another line says the same, or it is about this page
	}
	if at, err := time.Parse(time.RFC3339Nano, text("timestamp")); err == nil {
		e.Time = at.Local().Format("15:04:05.000")
	}
	var b strings.Builder
	for _, name := range detail {
		v, there := fields[name]
		if !there {
			continue
		}
		switch name {
		case "method", "path", "status", "error":
			fmt.Fprintf(&b, "%v  ", v)
		case "duration_ms":
			fmt.Fprintf(&b, "%v ms  ", v)
		default:
			fmt.Fprintf(&b, "%s %v  ", name, v)
		}
	}
	e.Detail = strings.TrimSpace(b.String())
	return e, true
}
