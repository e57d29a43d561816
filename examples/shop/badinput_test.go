package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// openShop starts the shop in this process, on free ports.
func openShop(t *testing.T) (*allInOne, *options) {
	t.Helper()
	o := &options{host: "127.0.0.1", portOffset: -1, data: t.TempDir(), broker: "memory:", log: "none", logLevel: "error",
		breaker: time.Second, faults: true, seed: true}
	h, err := newAllInOne(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return h, o
}

// Every operation of every service gets nonsense, with and without a token, through the gateway and directly: the
// answer is a problem with the correlation id, and tells nothing of how the service is made.
func TestBadInputEverywhere(t *testing.T) {
	h, o := openShop(t)
	tokens := map[string]string{"no token": "", "a bad token": "not.a.token", "ana": signIn(t, h.URL(), "ana"),
		"admin": signIn(t, h.URL(), "admin")}
	direct := map[string]string{"users": o.peers.Users, "products": o.peers.Products, "orders": o.peers.Orders,
		"inventory": o.peers.Inventory, "payments": o.peers.Payments, "notifications": o.peers.Notifications}
	operations := 0
	for name, url := range direct {
		var doc struct {
			Paths map[string]map[string]json.RawMessage `json:"paths"`
		}
		fetch(t, url+"/openapi.json", &doc)
		for path, methods := range doc.Paths {
			for method := range methods {
				operations++
				for _, base := range []string{url, h.URL() + "/" + name} {
					for who, token := range tokens {
						for _, id := range []string{"none", "%00", "a%ff", "%27%3B%20DROP%20TABLE%20users%3B--", "..%2F..%2Fetc%2Fpasswd",
							strings.Repeat("x", 300)} {
							for _, body := range []string{"", "{", `{"items":"none","password":7}`, `[]`,
								`{"a":` + strings.Repeat("[", 2000)} {
								target := base + strings.NewReplacer("{id}", id, "{product_id}", id).Replace(path)
								if strings.ToUpper(method) == http.MethodGet {
									target += "?limit=-1&after=none&order_id=" + strings.Repeat("y", 100)
								}
								badCall(t, who, token, strings.ToUpper(method), target, body)
							}
						}
					}
				}
			}
		}
	}
	t.Logf("%d operations, answers by status: %v", operations, statuses)
	if operations < 30 {
		t.Errorf("only %d operations were found", operations)
	}
}

// statuses counts the answers, to see that it is not one refusal that answers all.
var statuses = map[int]int{}

func badCall(t *testing.T, who, token, method, url, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Correlation-ID", "bad-1")
	req.Header.Set("Idempotency-Key", "what")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Errorf("%s as %s: %v", cutURL(url), who, err)
		return
	}
	defer res.Body.Close()
	statuses[res.StatusCode]++
	raw, _ := io.ReadAll(res.Body)
	what := method + " " + cutURL(url) + " as " + who + ": " + res.Status + " " + string(raw[:min(len(raw), 300)])
	if res.StatusCode < 400 { // some operations take no input that could be bad
		if method != http.MethodGet && !strings.HasSuffix(url, "/cancel") {
			t.Errorf("accepted: %s", what)
		}
		return
	}
	var p struct {
		Type          string `json:"type"`
		Status        int    `json:"status"`
		CorrelationID string `json:"correlation_id"`
	}
	if err := json.Unmarshal(raw, &p); err != nil || res.Header.Get("Content-Type") != "application/problem+json" ||
		p.Status != res.StatusCode ||
		p.Type == "" || p.CorrelationID != "bad-1" {
		t.Errorf("no problem: %s", what)
	}
	if res.StatusCode >= 500 {
		t.Errorf("blames itself: %s", what)
	}
	for _, leak := range []string{"goroutine", ".go:", "sqlite", "SQLSTATE", "pq:", "sqldb", "sqlrepo", "panic",
		"127.0.0.1"} {
		if strings.Contains(string(raw), leak) {
			t.Errorf("leaks %q: %s", leak, what)
		}
	}
}

func cutURL(s string) string { return s[:min(len(s), 140)] }

func fetch(t *testing.T, url string, into any) {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(into); err != nil {
		t.Fatalf("%s: %v", url, err)
	}
}
