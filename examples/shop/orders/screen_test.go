package orders

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/examples/shop/internal/platform"
	"github.com/sillar-go/sillar/examples/shop/live"
	"github.com/sillar-go/sillar/messaging/memory"
	"github.com/sillar-go/sillar/repository/eventstore"
	"github.com/sillar-go/sillar/repository/eventstore/memevents"
	"github.com/sillar-go/sillar/repository/sqldb"
	_ "github.com/sillar-go/sillar/repository/sqldb/sqlite"
	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagasql"
)

// screen is the live page over the frames of the services, which participants stand behind.
type screen struct {
	page               *live.Page
	gateway, orders    *platform.Service
	payment, inventory *platform.Service
	project            *eventstore.Projector // of the read model, which is brought up to date at each look
}

// nowhere is a network on which nothing is reached.
type nowhere struct{}

func (nowhere) Listen(string) (net.Listener, error) { return nowhere{}, nil }
func (nowhere) DialContext(context.Context, string, string) (net.Conn, error) {
	return nil, errRefused
}
func (nowhere) Accept() (net.Conn, error) { return nil, errors.ErrUnsupported }
func (nowhere) Close() error              { return nil }
func (nowhere) Addr() net.Addr            { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80} }

func newScreen(t *testing.T, p *participants) *screen {
	t.Helper()
	keys := authn.Must(authn.NewKeySet(authn.NewMemoryKeys(), authn.KeyConfig{Logger: slog.New(slog.DiscardHandler)}))
	broker := memory.Must(memory.New(memory.Config{Source: "shop"}))
	frame := func(name string) *platform.Service {
		s, err := platform.New(t.Context(), platform.Config{Name: name, Version: "test", Network: nowhere{},
			DB: "sqlite::memory:", LogWriter: io.Discard, NoAPI: name != "orders", PublicEdge: name == "gateway",
			Tokens: platform.Tokens{Keys: keys, Secret: []byte(strings.Repeat("s", 32))},
			Peers: platform.Peers{Products: "http://products", Inventory: "http://inventory", Payments: "http://payments",
				UsersGRPC: "users:50051"},
			WrapTransport: func(http.RoundTripper) http.RoundTripper { return p }})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Abandon(context.Background()) })
		return s
	}
	sc := &screen{page: live.New(broker, false), gateway: frame("gateway"), orders: frame("orders"),
		payment: frame("payments"), inventory: frame("inventory")}
	t.Cleanup(func() {
		if err := broker.Close(); err != nil {
			t.Error(err)
		}
	})
	reply := func(s *platform.Service, path string, body func() any) {
		s.Mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			p.mu.Lock()
			defer p.mu.Unlock()
			_ = json.NewEncoder(w).Encode(body())
		})
	}
	reply(sc.payment, "/api/v1/totals", func() any {
		captured := platform.Total{Status: "captured"}
		for _, state := range p.paid {
			if state == "captured" {
				captured.Count++
				captured.Cents += price
			}
		}
		return platform.List[platform.Total]{Items: []platform.Total{captured}}
	})
	reply(sc.inventory, "/api/v1/inventory", func() any {
		left := map[string]int64{"on_hand": 1000}
		for _, state := range p.reserved {
			switch state {
			case "committed":
				left["on_hand"]--
			case "reserved":
				left["reserved"]++
			}
		}
		left["available"] = left["on_hand"] - left["reserved"]
		return platform.List[map[string]int64]{Items: []map[string]int64{left}}
	})
	return sc
}

// attach hangs the page into the gateway, and what it asks of orders into that.
func (sc *screen) attach(
	t *testing.T, store *memevents.Store, orders *eventstore.Aggregate[Order, Event], sagas *saga.Orchestrator,
) {
	t.Helper()
	db, err := sqldb.Open(t.Context(), sc.orders.DB, sqldb.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	rows, err := platform.Repo[Row](t.Context(), db, "orders")
	if err != nil {
		t.Fatal(err)
	}
	sc.project, err = eventstore.NewProjector(store, db, project(orders, rows), eventstore.ProjectorConfig{Name: "orders"})
	if err != nil {
		t.Fatal(err)
	}
	operators(sc.orders, &service{db: db, sagas: sagas},
		func(context.Context, string) ([]sagasql.Change, error) { return nil, nil })
	sc.page.Attach([]*platform.Service{sc.orders, sc.inventory, sc.payment, sc.gateway})
}

// visit returns what the gateway answers to a browser on its machine that leaves after a second.
func (sc *screen) visit(t *testing.T, path string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	r := httptest.NewRequestWithContext(ctx, "GET", "http://127.0.0.1"+path, nil)
	r.RemoteAddr = "127.0.0.1:1234"
	w := httptest.NewRecorder()
	sc.gateway.Mux.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		t.Fatalf("GET %s: %d %s", path, w.Code, w.Body)
	}
	return w.Body.String()
}

// shows looks at the page as a visitor does, and at the data that its script reads: neither says that anything is stuck
// or wrong, both hold the texts, and the breaker between orders and payments is in the state ("" means closed).
func (sc *screen) shows(t *testing.T, breaker string, texts ...string) {
	t.Helper()
	for n, err := sc.project.Step(t.Context()); n > 0 || err != nil; n, err = sc.project.Step(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
	}
	page := sc.visit(t, "/")
	_, data, _ := strings.Cut(sc.visit(t, "/live/stream"), "data: ")
	var f struct {
		HTML   map[string]string
		Orders []struct{ HTML string }
		Broken map[string]string
	}
	if err := json.NewDecoder(strings.NewReader(data)).Decode(&f); err != nil {
		t.Fatalf("%v: %s", err, data)
	}
	streamed := f.HTML["strip"]
	for _, o := range f.Orders {
		streamed += o.HTML
	}
	for where, shown := range map[string]string{"page": page, "stream": streamed} {
		for _, text := range texts {
			if !strings.Contains(shown, text) {
				t.Errorf("the %s does not say %q: %s", where, text, f.HTML["strip"])
			}
		}
		for _, bad := range []string{"stuck", "tile bad", "not known"} {
			if strings.Contains(shown, bad) {
				t.Errorf("the %s says %q: %s", where, bad, f.HTML["strip"])
			}
		}
	}
	if got := f.Broken["e-orders-payments"]; got != breaker {
		t.Errorf("the breaker between orders and payments is shown as %q, want %q", got, breaker)
	}
}
