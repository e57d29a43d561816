package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sillar-go/sillar/repository/sqldb"
)

// liveShop runs a whole shop, and returns where its databases are. stop ends it, and says how long that took.
func liveShop(t *testing.T, change func(*options)) (h *allInOne, data string, stop func() time.Duration) {
	t.Helper()
	o := &options{host: "127.0.0.1", portOffset: -1, data: t.TempDir(), broker: "memory:", log: "none", logLevel: "info",
		breaker: time.Second, seed: true, faults: true}
	if change != nil {
		change(o)
	}
	h, err := newAllInOne(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	closed := make(chan error, 1)
	go func() { closed <- h.Run(ctx) }()
	var took time.Duration
	ended := false
	stop = func() time.Duration {
		if ended {
			return took
		}
		ended = true
		begin := time.Now()
		cancel()
		if err := <-closed; err != nil {
			t.Error(err)
		}
		took = time.Since(begin)
		return took
	}
	t.Cleanup(func() { stop() })
	return h, o.data, stop
}

// fetched is an answer.
type fetched struct {
	code   int
	header http.Header
	body   string
}

// request makes a request with headers given as names and values; Host is one of them.
func request(t *testing.T, method, url, body string, header ...string) fetched {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
	}
	client := http.Client{Timeout: 20 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return fetched{res.StatusCode, res.Header, string(text)}
}

// frame is what the stream of the page tells.
type frame struct {
	Fresh  bool
	HTML   map[string]string
	Orders []struct{ ID, HTML string }
	Pulse  map[string]string
	State  map[string]string
	Log    []string
}

// watch reads the stream of the page.
type watch struct {
	t      *testing.T
	lines  *bufio.Scanner
	orders map[string]string // the newest of each row
	html   map[string]string
	log    strings.Builder
	pulses map[string]string
}

func watchPage(t *testing.T, gateway, correlation string) *watch {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, "GET", gateway+"/live/stream?correlation="+url.QueryEscape(correlation),
		nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("the stream: %d %s", res.StatusCode, res.Header.Get("Content-Type"))
	}
	w := &watch{t: t, lines: bufio.NewScanner(res.Body), orders: map[string]string{}, html: map[string]string{},
		pulses: map[string]string{}}
	w.lines.Buffer(nil, 4<<20)
	return w
}

// until reads until the page shows something.
func (w *watch) until(what string, shown func(frame) bool) {
	w.t.Helper()
	for w.lines.Scan() {
		data, ok := strings.CutPrefix(w.lines.Text(), "data: ")
		if !ok {
			continue
		}
		var f frame
		if err := json.Unmarshal([]byte(data), &f); err != nil {
			w.t.Fatal(err)
		}
		for _, o := range f.Orders {
			w.orders[o.ID] = o.HTML
		}
		for id, html := range f.HTML {
			w.html[id] = html
		}
		for id, how := range f.Pulse {
			w.pulses[id] = how
		}
		for _, l := range f.Log {
			w.log.WriteString(l + "\n")
		}
		if shown(f) {
			return
		}
	}
	w.t.Fatalf("the stream ended before: %s (%v); %d orders; %s %s", what, w.lines.Err(), len(w.orders), w.html["strip"],
		w.html["notes"])
}

// order waits for a row that has all of the texts.
func (w *watch) order(texts ...string) (html string) {
	w.t.Helper()
	w.until(fmt.Sprint("an order with ", texts), func(frame) bool {
		for _, html = range w.orders {
			all := true
			for _, text := range texts {
				all = all && strings.Contains(html, text)
			}
			if all {
				return true
			}
		}
		return false
	})
	return html
}

// tile waits until an invariant is shown in a state.
func (w *watch) tile(name, state string) {
	w.t.Helper()
	want := `<li class="tile ` + state + `"><span class="name">` + name + `<`
	w.until(name+" "+state, func(frame) bool { return strings.Contains(w.html["strip"], want) })
}

// What the page shows is what happens: an order with all its steps, one that turns back, the ways that they take, the
// log of each, and money that is not where it should be.
func TestLivePage(t *testing.T) {
	h, data, stop := liveShop(t, nil)
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
