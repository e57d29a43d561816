package simulation_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/sillar-go/sillar/examples/shop/products"
)

// rows reads a table of a service.
func (w *world) rows(service, sql string) [][]string {
	rows, err := w.disks[service].query(sql)
	if err != nil {
		w.findf("%v", err)
	}
	return rows
}

func (w *world) count(service, sql string) string {
	rows := w.rows(service, sql)
	if len(rows) == 0 {
		return "no database"
	}
	return rows[0][0]
}

// outboxes says what the outboxes hold.
func (w *world) outboxes() string {
	var held []string
	for _, name := range []string{"users", "products", "orders"} {
		if n := w.count(name, "SELECT count(*) FROM sillar_outbox"); n != "0" {
			held = append(held, n+" of "+name)
		}
	}
	return strings.Join(held, ", ")
}

// letters returns how often each event of an order was notified, and how often it happened.
func (w *world) letters() (sent, happened map[string]int) {
	sent, happened = map[string]int{}, map[string]int{}
	for _, r := range w.rows("notifications", "SELECT event, order_id FROM notifications WHERE order_id <> ''") {
		sent[r[0]+" "+r[1]]++
	}
	for _, r := range w.rows("orders", "SELECT type, stream FROM sillar_events") {
		happened[strings.Replace(r[0], "order_", "orders.", 1)+" "+strings.TrimPrefix(r[1], "order-")]++
	}
	return sent, happened
}

// missing says how many events have no letter yet.
func (w *world) missing() string {
	sent, happened := w.letters()
	n := 0
	for what := range happened {
		if sent[what] == 0 {
			n++
		}
	}
	return strconv.Itoa(n)
}

// check compares what customers were told with what the databases hold.
func (w *world) check() []string {
	type state struct {
		status string
		cents  int
	}
	orders := map[string]state{}
	for _, r := range w.rows("orders", "SELECT id, status, total_cents FROM orders") {
		orders[r[0]] = state{r[1], number(r[2])}
	}
	sagas := map[string]string{}
	for _, r := range w.rows("orders", "SELECT id, status FROM sillar_sagas") {
		sagas[r[0]] = r[1]
		if r[1] != "COMPLETED" && r[1] != "COMPENSATED" {
			w.findf("saga %s is %s", r[0], r[1])
		}
	}

	// Orders: each that was acknowledged is there, once.
	ids := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(w.orders)) {
		p := w.orders[key]
		switch o := orders[p.id]; {
		case p.refused != 0:
			w.findf("%s was refused with %d", key, p.refused)
		case p.cancelled && o.status != "cancelled":
			w.findf("order %s is %s, and the customer was told that it is cancelled", p.id, o.status)
		case p.cancelled:
		case ids[p.id] != "":
			w.findf("%s and %s are one order", key, ids[p.id])
		case o.status == "" && sagas[p.id] == "COMPENSATED": // compensated before it was created
		case o.status != "paid" && o.status != "cancelled":
			w.findf("%s, order %s, is %q", key, p.id, o.status)
		}
		if !p.cancelled {
			ids[p.id] = key
		}
	}
	for id := range orders {
		if ids[id] == "" {
			w.findf("nobody placed order %s", id)
		}
	}

	// Money: what is captured is what paid orders cost, in the payments and at the processor.
	captured := map[string]int{}
	for _, r := range w.rows("payments", "SELECT order_id, amount_cents FROM payments WHERE status = 'captured'") {
		captured[r[0]] += number(r[1])
	}
	charged := map[string]int{}
	for _, r := range w.rows("payments",
		"SELECT order_id, amount_cents FROM processor_charges WHERE status = 'approved'") {
		charged[r[0]] += number(r[1])
	}
	for id := range merged(orders, captured, charged) {
		want := 0
		if orders[id].status == "paid" {
			want = orders[id].cents
		}
		if captured[id] != want || charged[id] != want {
			w.findf("order %s is %s over %d cents, has %d captured and %d charged", id, orders[id].status, orders[id].cents,
				captured[id], charged[id])
		}
	}

	// Stock: what is missing is what was sold, and nothing is reserved.
	left := map[string]int{}
	for _, p := range products.Catalogue {
		left[p.ID] = int(p.Stock)
	}
	for _, r := range w.rows("orders", `SELECT json_extract(i.value, '$.product_id'), json_extract(i.value, '$.quantity')
		FROM orders o, json_each(o.items) i WHERE o.status = 'paid'`) {
		left[r[0]] -= number(r[1])
	}
	for _, r := range w.rows("inventory", "SELECT id, on_hand, reserved FROM stocks") {
		if number(r[1]) != left[r[0]] || number(r[2]) != 0 {
			w.findf("stock of %s: %s on hand and %s reserved, want %d and 0", r[0], r[1], r[2], left[r[0]])
		}
		delete(left, r[0])
	}
	if len(left) > 0 {
		w.findf("no stock of %v", left)
	}

	// Notifications: one for each event.
	sent, happened := w.letters()
	for what := range merged(sent, happened) {
		if sent[what] != 1 || happened[what] != 1 {
			w.findf("%s happened %d times and was notified %d times", what, happened[what], sent[what])
		}
	}
	if held := w.outboxes(); held != "" {
		w.findf("outboxes hold %s", held)
	}
	for _, group := range []string{"inventory", "notifications"} {
		dead, err := w.broker.DeadLetters(context.Background(), group, 10)
		for _, d := range dead {
			w.findf("dead letter of %s: %s after %d attempts: %s", group, d.Type, d.Attempts, d.Reason)
		}
		if err != nil {
			w.findf("%v", err)
		}
	}
	slices.Sort(w.findings)
	return slices.Compact(w.findings)
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(fmt.Sprintf("%q is no number", s))
	}
	return n
}

// merged returns the keys of maps.
func merged[A, B any](a map[string]A, more ...map[string]B) map[string]bool {
	out := map[string]bool{}
	for k := range a {
		out[k] = true
	}
	for _, m := range more {
		for k := range m {
			out[k] = true
		}
	}
	return out
}
