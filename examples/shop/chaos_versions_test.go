//go:build chaos

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// change replaces a part of a source file for the next version of the shop.
type change struct{ file, old, next string }

// nextVersion is what a release may change: a saga has one more step and field, an event one more field, a table one
// more column, and a group handles one more topic. Its processes besides have a clock that is 20 s ahead of the others,
// which is less than the 30 s that tokens allow for: Go's time package is changed, for no other way reaches a static
// program.
var nextVersion = []change{
	{"orders/place_order.go", `saga.Define[Placing]("place-order", 1,`, `saga.Define[Placing]("place-order", 2,`},
	{"orders/place_order.go", `	).Deadline(confirmWithin)`, `		saga.Retriable("write-invoice", h.invoice),
	).Deadline(confirmWithin).ResumesFrom(1)`},
	{"orders/place_order.go", `func (h *steps) cancel(`, `func (h *steps) invoice(_ context.Context, _ *saga.Call, p *Placing) error {
	p.InvoiceID = "inv-" + p.OrderID
	return nil
}

func (h *steps) cancel(`},
	{"orders/place_order.go", `	PaymentID     string`, `	InvoiceID string ` + "`json:\"invoice_id,omitempty\"`" + `
	PaymentID     string`},
	{"orders/place_order.go", `p.TotalCents, now()}, p.Items}`, `p.TotalCents, now()}, p.Items, "web"}`},
	{"orders/order.go", "		Items []Item `json:\"items\"`", "		Items []Item `json:\"items\"`\n		Channel string `json:\"channel\"`"},
	{"orders/read.go", `	PlacedAt   time.Time`, `	PlacedAt   time.Time
	Channel    string`},
	{"orders/read.go", `				o.Items, o.Reason, o.CreatedAt`, `				o.Items, o.Reason, o.CreatedAt
			if e, ok := e.(Created); ok {
				row.Channel = e.Channel
			}`},
	{"orders/build.go", "const indexes = `", "const indexes = `ALTER TABLE orders ADD COLUMN IF NOT EXISTS channel TEXT NOT NULL DEFAULT '';\n"},
	{"notifications/events.go", `	messaging.Handle(g, "orders.*", in.order)`, `	messaging.Handle(g, "orders.*", in.order)
	messaging.Handle(g, "products.*", in.product)`},
	{"notifications/events.go", `func (in *inbound) order(`, `func (in *inbound) product(ctx context.Context, m messaging.Message[struct {
	Name string ` + "`json:\"name\"`" + `
}]) error {
	_, err := in.notifications.Create(ctx, Notification{UserID: "catalogue", Event: m.Type, Subject: m.Data.Name,
		Status: in.status, DueAt: time.Now()})
	return err
}

func (in *inbound) order(`},
	{goroot + "src/time/time.go", "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n",
		"func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n\tsec += 20\n"},
}

// goroot begins the names of files of Go itself.
const goroot = "$GOROOT/"

// buildNext builds the next version of the shop.
func buildNext(t *testing.T) (program string) {
	t.Helper()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	texts := map[string]string{}
	root, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range nextVersion {
		file := filepath.Join(here, c.file)
		if own, ok := strings.CutPrefix(c.file, goroot); ok {
			file = filepath.Join(strings.TrimSpace(string(root)), own)
		}
		if texts[file] == "" {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			texts[file] = string(text)
		}
		if n := strings.Count(texts[file], c.old); n != 1 {
			t.Fatalf("the next version: %s contains %q %d times, want once", file, c.old, n)
		}
		texts[file] = strings.Replace(texts[file], c.old, c.next, 1)
		name := filepath.Join(dir, fmt.Sprint(len(texts), ".go"))
		if of := overlay.Replace[file]; of != "" {
			name = of
		}
		if err := os.WriteFile(name, []byte(texts[file]), 0o600); err != nil {
			t.Fatal(err)
		}
		overlay.Replace[file] = name
	}
	text, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	replace := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(replace, text, 0o600); err != nil {
		t.Fatal(err)
	}
	program = filepath.Join(dir, "next")
	build := exec.CommandContext(t.Context(), "go", "build", "-overlay", replace, "-o", program, ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the next version: %v\n%s", err, out)
	}
	return program
}

// roll replaces a replica by one of the next version, or of the present one.
func (c *chaos) roll(name string, r int, next bool) {
	c.t.Helper()
	// To close a connection to a server that is silent takes longer than a service has for going down.
	if err := c.replicas[name][r].stop(syscall.SIGTERM); err != nil && time.Since(c.silent) > 30*time.Second {
		c.t.Errorf("%s %d, on SIGTERM: %v", name, r, err)
	}
	c.next[name][r] = next
	c.start(name, r)
	ready(c.t, c.replicas[name][r], c.balancer.replica(name, r))
	if next && name == "notifications" {
		c.catalogue.begin()
	}
}

// catalogue is the names that a product was given. Since begin they are noted, by the next version of notifications.
type catalogue struct {
	mu    sync.Mutex
	noted bool
	names []string
}

func (c *catalogue) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.noted = true
}

// rename gives the product another name until ctx ends. What is not answered does not count.
func (c *catalogue) rename(ctx context.Context, admin, gateway string) {
	for i := 0; ctx.Err() == nil; i++ {
		c.mu.Lock()
		noted := c.noted // before the change, or it may be older than the queue's binding
		c.mu.Unlock()
		name := fmt.Sprint("Mug ", i)
		code, _, err := send(ctx, admin, "PUT", gateway+"/products/api/v1/products/prod-mug", fmt.Sprintf(`{"name":%q}`, name))
		if noted && err == nil && code == http.StatusOK {
			c.mu.Lock()
			c.names = append(c.names, name)
			c.mu.Unlock()
		}
		time.Sleep(500 * time.Millisecond)
	}
}

// finishVersions rolls everything to the next version, and checks what it has done beside the present one.
func (c *chaos) finishVersions(ctx context.Context, admin, gateway string) {
	c.t.Helper()
	for _, b := range services {
		for r := range c.next[b.name] {
			if !c.next[b.name][r] {
				c.roll(b.name, r, true)
			}
		}
	}
	c.logf("all are of the next version")
	load, enough := context.WithTimeout(ctx, 3*time.Second)
	defer enough()
	c.catalogue.rename(load, admin, gateway)
	if len(c.catalogue.names) == 0 {
		c.t.Error("no product was renamed")
	}
	quoted := "'" + strings.Join(c.catalogue.names, "','") + "'"
	// What came to a process of the present version waits for 30 s at most until it is tried again.
	missing := ""
	for end := time.Now().Add(3 * time.Minute); missing != "0" && time.Now().Before(end); time.Sleep(time.Second) {
		missing = c.postgres.Value(c.t, "notifications", fmt.Sprintf(`SELECT %d - count(DISTINCT subject) FROM notifications
			WHERE user_id = 'catalogue' AND subject IN (%s)`, len(c.catalogue.names), quoted))
	}
	if missing != "0" {
		c.t.Errorf("%s of %d names were not noted", missing, len(c.catalogue.names))
	}
	twice := c.postgres.Value(c.t, "notifications", `SELECT count(*) - count(DISTINCT subject) FROM notifications
		WHERE user_id = 'catalogue' AND subject LIKE 'Mug %'`)
	if twice != "0" {
		c.t.Errorf("%s names were noted again", twice)
	}
	without := c.postgres.Value(c.t, "orders", `SELECT count(*) FROM sillar_sagas
		WHERE name = 'place-order' AND version = 2 AND status = 'completed' AND state NOT LIKE '%"invoice_id":"inv-%'`)
	if without != "0" {
		c.t.Errorf("%s sagas of version 2 completed without the step that it has added", without)
	}
	c.logf("sagas of each version: %s; rows with the new column: %s; names noted: %d",
		c.postgres.Value(c.t, "orders", `SELECT string_agg(v, ', ') FROM (SELECT version || ': ' || count(*) AS v
			FROM sillar_sagas WHERE name = 'place-order' GROUP BY version ORDER BY version) x`),
		c.postgres.Value(c.t, "orders", "SELECT count(*) FROM orders WHERE channel = 'web'"), len(c.catalogue.names))
}
