package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sillar-go/sillar/repository/sqldb"
)

// What the page shows is what happens: an order with all its steps, one that turns back, the ways that they take, the
// log of each, and money that is not where it should be.
func TestLivePage(t *testing.T) {
	h, data, stop := liveShop(t, nil)
	checkPage(t, h)

	w := watchPage(t, h.URL(), "")
	if a := request(t, "POST", h.URL()+"/live/place", "card=pm_card_visa&count=1"); a.code != 204 {
		t.Fatalf("place: %d %s", a.code, a.body)
	}
	paid := w.order("completed", "<span>paid</span>")
	if n := strings.Count(paid, `<li class="done"`); n != 6 {
		t.Errorf("%d of 6 steps are done: %s", n, paid)
	}
	w.until("pulses of the order's way", func(frame) bool {
		for _, id := range []string{"e-gateway-orders", "e-orders-users", "e-orders-payments", "e-orders-broker",
			"e-broker-notifications", "e-payments-payments-store"} {
			if w.pulses[id] != "ok" {
				return false
			}
		}
		return true
	})
	w.tile("Money captured", "ok")

	if a := request(t, "POST", h.URL()+"/live/place", "card=pm_card_declined&count=1"); a.code != 204 {
		t.Fatalf("place: %d %s", a.code, a.body)
	}
	turned := w.order("compensated", "cancelled: your card was declined")
	if strings.Count(turned, `<li class="undone"`) != 2 || strings.Count(turned, `<li class="failed"`) != 1 {
		t.Errorf("what was compensated: %s", turned)
	}

	// The log of one order alone, also of what was logged before.
	_, after, _ := strings.Cut(turned, `class="trace" value="`)
	id, _, _ := strings.Cut(after, `"`)
	log := watchPage(t, h.URL(), id)
	log.until("the log of an order", func(frame) bool {
		text := log.log.String()
		return strings.Contains(text, "payments") && strings.Contains(text, "inventory") &&
			strings.Contains(text, "orders.cancelled")
	})
	if lines := strings.Count(log.log.String(), "<li "); lines != strings.Count(log.log.String(), `value="`+id+`"`) {
		t.Errorf("lines of others: %s", log.log.String())
	}

	// A captured payment disappears from the database.
	db, err := sqldb.Open(t.Context(), "sqlite:"+filepath.Join(data, "payments.db"), sqldb.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Querier(t.Context()).Exec(t.Context(),
		"UPDATE payments SET amount_cents = amount_cents - 1 WHERE status = 'captured'"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	w.tile("Money captured", "bad")
	w.until("that it is said", func(frame) bool {
		return strings.Contains(w.html["notes"], "Invariants violated: money captured")
	})

	// Viewers who stay do not hold the end up: a drain that waited for them would take its full 8 seconds.
	if took := stop(); took > 5*time.Second {
		t.Errorf("the shop took %v to end with its page open", took)
	}
}

// checkPage reads the page itself.
func checkPage(t *testing.T, h *allInOne) {
	t.Helper()
	page := request(t, "GET", h.URL()+"/", "")
	for _, want := range []string{`id="strip"`, `action="/live/place"`, `id="e-orders-payments"`, `role="status"`,
		"inventory"} {
		if !strings.Contains(page.body, want) {
			t.Errorf("the page has no %s", want)
		}
	}
	csp := page.header.Get("Content-Security-Policy")
	if page.code != 200 || !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") {
		t.Fatalf("%d %s", page.code, csp)
	}
	for _, name := range []string{"live.css", "live.js", "icon.svg"} {
		if a := request(t, "GET", h.URL()+"/live/"+name, ""); a.code != 200 ||
			a.header.Get("X-Content-Type-Options") != "nosniff" || len(a.body) < 100 {
			t.Errorf("%s: %d", name, a.code)
		}
	}
}

// The controls break what they say, and heal it.
func TestLiveControls(t *testing.T) {
	h, _, _ := liveShop(t, nil)
	w := watchPage(t, h.URL(), "")
	post := func(path, body string) {
		t.Helper()
		if a := request(t, "POST", h.URL()+"/live/"+path, body); a.code != 204 {
			t.Fatalf("%s: %d %s", path, a.code, a.body)
		}
	}
	noted := func(text string) {
		t.Helper()
		w.until(text, func(frame) bool { return strings.Contains(w.html["notes"], text) })
	}
	post("race", "")
	noted("12 orders at once for the last 3 of &#34;Wool rug&#34;: 3 paid, 9 compensated")
	post("repeat", "")
	noted("One request, sent 3 times at once: 1 order.")

	post("broker", "mode=twice")
	post("place", "card=pm_card_visa&count=1")
	w.until("duplicates that are ignored", func(frame) bool {
		return strings.Contains(w.html["strip"], "duplicates ignored") && !strings.Contains(w.html["strip"],
			">0 duplicates ignored")
	})
	post("broker", "mode=down")
	post("place", "card=pm_card_visa&count=1")
	w.until("events that wait", func(frame) bool {
		return strings.Contains(w.html["n-broker"], "down") && strings.Contains(w.html["n-broker"], "in outboxes") &&
			strings.Contains(w.html["n-orders"], "no broker")
	})
	w.tile("Oldest unpublished event", "moving")

	post("payments", "mode=down")
	post("place", "card=pm_card_visa&count=1")
	w.until("a breaker that is open", func(frame) bool { return strings.Contains(w.html["n-payments"], "breaker open") })
	w.order("compensating", "compensating", `class="undoing"`)
	post("heal", "")
	w.until("a broker without a backlog", func(frame) bool { return strings.Contains(w.html["n-broker"], "in process") })
	w.tile("Sagas", "ok")
	w.tile("Money captured", "ok")

	post("load", "")
	w.until("load", func(f frame) bool { return f.State["load"] == "on" })
	post("load", "")
	noted("The load is over")

	for path, body := range map[string]string{"payments": "mode=gone", "broker": "",
		"place": "card=pm_card_visa&count=99"} {
		if a := request(t, "POST", h.URL()+"/live/"+path, body); a.code != 422 || !strings.Contains(a.body, `"field"`) {
			t.Errorf("%s with %q: %d %s", path, body, a.code, a.body)
		}
	}
	if a := request(t, "POST", h.URL()+"/live/repeat", "", "Accept", "text/html"); a.code != 303 ||
		a.header.Get("Location") != "/" {
		t.Errorf("a browser without a script: %d %v", a.code, a.header)
	}
	if a := request(t, "GET", h.URL()+"/live/repeat", ""); a.code != 405 && a.code != 404 {
		t.Errorf("GET changes something: %d", a.code)
	}
}

// What only an operator may is kept from other pages, other names and other machines; and a shop that others may reach,
// or a gateway that stands alone, does not have it at all.
func TestLivePageIsForThisMachine(t *testing.T) {
	h, _, _ := liveShop(t, nil)
	plain := func(what string, f fetched) {
		t.Helper()
		if f.code != 200 || strings.Contains(f.body, "/live/") || !strings.Contains(f.body, "Six services") {
			t.Errorf("%s: %d %.300s", what, f.code, f.body)
		}
	}
	plain("a rebound name", request(t, "GET", h.URL()+"/", "", "Host", "evil.example"))
	plain("through a proxy", request(t, "GET", h.URL()+"/", "", "X-Forwarded-For", "192.0.2.1"))
	for _, header := range [][]string{{"Host", "evil.example"}, {"Origin", "https://evil.example"},
		{"Sec-Fetch-Site", "cross-site"}, {"X-Forwarded-For", "192.0.2.1"}} {
		if a := request(t, "POST", h.URL()+"/live/payments", "mode=down", header...); a.code != 403 {
			t.Errorf("%v: %d %s", header, a.code, a.body)
		}
		if header[0] == "Origin" {
			continue // the browser decides whether another origin may read
		}
		if a := request(t, "GET", h.URL()+"/live/stream", "", header...); a.code != 403 {
			t.Errorf("stream, %v: %d", header, a.code)
		}
	}
	w := watchPage(t, h.URL(), "")
	w.until("payments that are well", func(f frame) bool { return f.State["payments"] == "ok" })

	open, _, _ := liveShop(t, func(o *options) { o.host = "0.0.0.0" })
	plain("a shop that others reach", request(t, "GET", open.URL()+"/", ""))
	for _, path := range []string{"POST /live/place", "GET /live/stream", "GET /live/live.js"} {
		method, path, _ := strings.Cut(path, " ")
		if a := request(t, method, open.URL()+path, ""); a.code != 404 {
			t.Errorf("a shop that others reach: %s %s: %d", method, path, a.code)
		}
	}
}
