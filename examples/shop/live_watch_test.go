package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
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
