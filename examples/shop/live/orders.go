package live

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"

	"github.com/sillar-go/sillar/saga"
)

// keptOrders is how many orders are shown.
const keptOrders = 24

// orderRow is an order as it is shown: what was ordered, and how far its saga has come.
type orderRow struct {
	ID, Short, What, Card string
	Correlation           string
	State                 string // running, compensating, completed, compensated, stuck
	End                   string
	Steps, Taken          []stepRow // Taken are those of the saga that takes a paid order back
	seq                   uint64    // the state of the whole in which it changed last
}

// stepRow is a step of a saga.
type stepRow struct {
	Name, State, Mark, Title string
}

// Key is the id of the row in the page.
func (r orderRow) Key() string { return "order-" + r.ID }

// placing is what is read of the state of the saga that places an order.
type placing struct {
	OrderID string `json:"order_id"`
	Items   []struct {
		Name     string `json:"name"`
		Quantity int64  `json:"quantity"`
	} `json:"items"`
	TotalCents    int64  `json:"total_cents"`
	PaymentMethod string `json:"payment_method"`
}

// orderBook keeps the newest orders, as their sagas report them.
type orderBook struct {
	mu   sync.Mutex
	rows []*orderRow // the newest last
	seq  uint64
}

// observe takes a change of a saga. It is called on the goroutine that runs the saga, and does little.
func (b *orderBook) observe(_ context.Context, r saga.Record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	id, cancelling := strings.CutPrefix(r.ID, "cancel-")
	row := b.find(id)
	if row == nil {
		if cancelling {
			return // an order from before
		}
		if len(b.rows) == keptOrders && id < b.rows[0].ID {
			return // it has made room for newer ones: ids are in the order of time
		}
		var p placing
		if json.Unmarshal(r.State, &p) != nil || p.OrderID != id {
			return
		}
		row = newRow(id, p, r.Headers)
		if len(b.rows) == keptOrders {
			b.rows = append(b.rows[:0], b.rows[1:]...)
		}
		b.rows = append(b.rows, row)
	}
	b.seq++
	row.seq = b.seq
	if cancelling {
		row.Taken = stepsOf(r)
		if r.Status == saga.Completed {
			row.State, row.End = "compensated", "cancelled, money and goods are back"
		}
		return
	}
	row.Steps = stepsOf(r)
	row.State = strings.ToLower(string(r.Status))
	row.End = endOf(r)
}

func (b *orderBook) find(id string) *orderRow {
	for i := len(b.rows) - 1; i >= 0; i-- {
		if b.rows[i].ID == id {
			return b.rows[i]
		}
	}
	return nil
}

// since returns what changed after seq, oldest first, and the number to go on from.
func (b *orderBook) since(seq uint64) (rows []orderRow, next uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.rows {
		if r.seq > seq {
			rows = append(rows, *r)
		}
	}
	return rows, b.seq
}

func newRow(id string, p placing, headers map[string]string) *orderRow {
	row := &orderRow{ID: id, Short: id[max(0, len(id)-6):], Card: strings.TrimPrefix(p.PaymentMethod, "pm_card_")}
	for name, v := range headers {
		if strings.EqualFold(name, "X-Correlation-ID") {
			row.Correlation = v
		}
	}
	var names []string
	for _, it := range p.Items {
		names = append(names, fmt.Sprintf("%d × %s", it.Quantity, it.Name))
	}
	row.What = strings.Join(names, ", ") + ", " + euros(p.TotalCents)
	return row
}

func euros(cents int64) string {
	sign := ""
	if cents < 0 {
		sign, cents = "−", -cents
	}
	return fmt.Sprintf("%s%d.%02d €", sign, cents/100, cents%100)
}

// shortStep are the steps' names in a narrow place.
var shortStep = map[string]string{"create-order": "create", "check-inventory": "check", "reserve-inventory": "reserve",
	"process-payment": "pay",
	"confirm-order":   "confirm", "commit-reservation": "commit", "cancel-order": "cancel", "refund-payment": "refund",
	"restock": "restock"}

func stepsOf(r saga.Record) []stepRow {
	out := make([]stepRow, len(r.Steps))
	for i, st := range r.Steps {
		s := stepRow{Name: shortStep[st.Name]}
		if s.Name == "" {
			s.Name = st.Name
		}
		why, attempts := st.Error, st.Attempts
		switch {
		case r.Status == saga.Compensating && i == r.Cursor && (st.Status == saga.StepCompleted ||
			st.Status == saga.StepStarted || st.InDoubt):
			s.State, s.Mark, why, attempts = "undoing", "↩", st.UndoError, st.UndoAttempts
		case st.Status == saga.StepNotStarted:
			s.State, s.Mark = "waiting", "·"
		case st.Status == saga.StepStarted:
			s.State, s.Mark = "running", "…"
		case st.Status == saga.StepCompleted:
			s.State, s.Mark = "done", "✓"
		case st.Status == saga.StepFailed:
			s.State, s.Mark = "failed", "✗"
		case st.Status == saga.StepCompensated:
			s.State, s.Mark, why, attempts = "undone", "↩", "", st.UndoAttempts
		}
		s.Title = st.Name + ": " + s.State
		if attempts > 1 {
			s.Title += fmt.Sprintf(", %d attempts", attempts)
		}
		if why != "" && s.State != "done" {
			s.Title += ": " + why
		}
		out[i] = s
	}
	return out
}

func endOf(r saga.Record) string {
	switch r.Status {
	case saga.Completed:
		return "paid"
	case saga.Compensated:
		return "cancelled: " + r.Cause
	case saga.Compensating:
		return "compensating: " + r.Cause
	case saga.Stuck:
		return "stuck, an operator must help: " + r.Cause
	}
	if st := r.Steps[min(r.Cursor, len(r.Steps)-1)]; st.Attempts > 1 || st.Error != "" {
		return fmt.Sprintf("attempt %d", st.Attempts)
	}
	return "under way"
}
