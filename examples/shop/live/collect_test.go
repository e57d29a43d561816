package live

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/sillar-go/sillar/saga"
)

// The journal keeps the newest lines, filters them, and says from where to go on.
func TestJournalKeepsNewestLinesAndPages(t *testing.T) {
	var j journal
	for i := range keptLines + 10 {
		fmt.Fprintf(&j, `{"message":"m%d","correlation_id":"c%d"}`, i, i%7)
	}
	lines, next := j.since(0, "", keptLines+10)
	if len(lines) != keptLines || !strings.Contains(string(lines[0]), `"m10"`) || next != keptLines+10 {
		t.Fatalf("%d lines from %s, next %d", len(lines), lines[0], next)
	}
	if lines, _ := j.since(0, "c3", 5); len(lines) != 5 || !strings.Contains(string(lines[4]),
		fmt.Sprintf(`"m%d"`, (keptLines+9-3)/7*7+3)) {
		t.Fatalf("filtered: %s", lines)
	}
	if lines, _ := j.since(next, "", 10); len(lines) != 0 {
		t.Fatalf("nothing new: %s", lines)
	}
	_, _ = j.Write([]byte("{}"))
	if lines, now := j.since(next, "", 10); len(lines) != 1 || now != next+1 {
		t.Fatalf("one new: %s %d", lines, now)
	}
	if _, _ = j.Write(make([]byte, 3*keptBytes)); len(j.lines[(j.next-1)%keptLines]) != keptBytes {
		t.Fatal("a long line is kept whole")
	}
}

func TestReadEntry(t *testing.T) {
	e, ok := readEntry([]byte(`{"timestamp":"2026-01-02T03:04:05.678Z","level":"WARN","message":"request","service":"orders","correlation_id":"c","method":"POST","path":"/x","status":503,"duration_ms":1.5,"error":"<b>"}`))
	if !ok || e.Service != "orders" || e.Correlation != "c" || e.Detail != "POST  /x  503  1.5 ms  <b>" ||
		!strings.HasSuffix(e.Time, ":05.678") {
		t.Fatalf("%+v %v", e, ok)
	}
	if html := execute("line", e); strings.Contains(html, "<b>") {
		t.Fatalf("what is logged becomes part of the page: %s", html)
	}
	for _, line := range []string{"", "no JSON", `{"message":"gateway: request"}`,
		`{"message":"request","path":"/live/stream"}`} {
		if _, ok := readEntry([]byte(line)); ok {
			t.Errorf("shown: %s", line)
		}
	}
}

func record(id string, status saga.Status, cursor int, steps ...saga.StepStatus) saga.Record {
	state, _ := json.Marshal(map[string]any{"order_id": id, "total_cents": 1250, "payment_method": "pm_card_visa",
		"items": []map[string]any{{"name": "Mug", "quantity": 2}}})
	r := saga.Record{ID: id, Status: status, Cursor: cursor, State: state,
		Headers: map[string]string{"X-Correlation-ID": "c-" + id}, Cause: "no"}
	for i, s := range steps {
		r.Steps = append(r.Steps, saga.StepState{Name: []string{"create-order", "reserve-inventory", "process-payment"}[i],
			Status: s, Attempts: 1})
	}
	return r
}

// An order's row follows its saga forwards and back.
func TestOrderBook(t *testing.T) {
	var b orderBook
	tell := func(r saga.Record) orderRow {
		t.Helper()
		_, before := b.since(math.MaxUint64)
		b.observe(t.Context(), r)
		rows, _ := b.since(before)
		if len(rows) != 1 {
			t.Fatalf("%d rows changed", len(rows))
		}
		return rows[0]
	}
	states := func(r orderRow) (s string) {
		for _, st := range append(r.Steps, r.Taken...) {
			s += st.State + " "
		}
		return strings.TrimSpace(s)
	}
	const n, s, d, f, c = saga.StepNotStarted, saga.StepStarted, saga.StepCompleted, saga.StepFailed, saga.StepCompensated
	row := tell(record("o1", saga.Running, 0, s, n, n))
	if row.What != "2 × Mug, 12.50 €" || row.Card != "visa" || row.Correlation != "c-o1" ||
		states(row) != "running waiting waiting" || row.End != "under way" {
		t.Fatalf("%+v", row)
	}
	if row = tell(record("o1", saga.Compensating, 1, d, d, f)); states(row) != "done undoing failed" ||
		row.End != "compensating: no" {
		t.Fatalf("%+v", row)
	}
	if row = tell(record("o1", saga.Compensated, 0, c, c, f)); states(row) != "undone undone failed" ||
		row.End != "cancelled: no" {
		t.Fatalf("%+v", row)
	}
	row = tell(record("o2", saga.Completed, 2, d, d, d))
	if row.End != "paid" || row.State != "completed" {
		t.Fatalf("%+v", row)
	}
	taken := record("cancel-o2", saga.Completed, 0, d)
	if row = tell(taken); row.ID != "o2" || row.State != "compensated" || states(row) != "done done done done" {
		t.Fatalf("an order that was taken back: %+v", row)
	}
	b.observe(t.Context(), record("cancel-unknown", saga.Completed, 0, d))
	for i := range 3 * keptOrders {
		b.observe(t.Context(), record(fmt.Sprintf("order-%03d", i), saga.Running, 0, s))
	}
	b.observe(t.Context(), record("o1", saga.Compensated, 0, c)) // an old one does not take the place of a new one
	rows, _ := b.since(0)
	if len(rows) != keptOrders || rows[0].ID != fmt.Sprintf("order-%03d", 2*keptOrders) ||
		rows[keptOrders-1].ID != fmt.Sprintf("order-%03d", 3*keptOrders-1) {
		t.Fatalf("%d rows, from %s to %s", len(rows), rows[0].ID, rows[len(rows)-1].ID)
	}
}

func TestQuantileOfHistogramBuckets(t *testing.T) {
	inf := math.Inf(1)
	before := map[float64]float64{0.1: 10, 0.2: 10, inf: 10}
	for want, now := range map[float64]map[float64]float64{
		0.195: {0.1: 10, 0.2: 110, inf: 110}, // all between 0.1 and 0.2
		0.095: {0.1: 110, 0.2: 110, inf: 110},
		0.2:   {0.1: 10, 0.2: 10, inf: 110}, // above all bounds: the highest is all that is known
	} {
		if got := quantile(0.95, before, now); math.Abs(got-want) > 1e-9 {
			t.Errorf("quantile of %v: %v, want %v", now, got, want)
		}
	}
	if got := quantile(0.95, before, before); !math.IsNaN(got) {
		t.Errorf("quantile of nothing: %v", got)
	}
}

func TestSparklineHasBoundedPoints(t *testing.T) {
	if got := spark([]float64{0, 2, math.NaN(), 1}); got != "M87.0 19.0h.1L88.0 2.0M90.0 10.5h.1" {
		t.Error(got)
	}
	var points []float64
	for i := range 2 * keptPoints {
		points = push(points, float64(i))
	}
	if len(points) != keptPoints || points[0] != keptPoints {
		t.Errorf("%d points from %v", len(points), points[0])
	}
}

// A difference is explained by running sagas only, and not for long.
func TestTilesExplainADifference(t *testing.T) {
	state := func(a audit) (out string) {
		a.at = a.at.Add(1)
		for _, tile := range a.tiles() {
			out += tile.State + " "
		}
		return strings.TrimSpace(out)
	}
	for want, a := range map[string]audit{
		"ok ok ok ok ok":         {held: 100, standing: 100},
		"moving ok moving ok ok": {held: 150, standing: 100, open: 1},
		"bad ok ok ok ok":        {held: 150, standing: 100, wrongMoney: true, badMoney: true},
		"ok bad ok ok ok":        {negative: 1, shortest: -1},
		"ok ok bad ok ok":        {stuck: 1, open: 1},
		"ok ok ok moving ok":     {facts: facts{pending: 3, lag: 2}},
		"ok ok ok ok bad":        {dead: 1},
		"moving":                 {unknown: fmt.Errorf("down")},
	} {
		if got := state(a); got != want {
			t.Errorf("%+v: %s, want %s", a, got, want)
		}
	}
}
