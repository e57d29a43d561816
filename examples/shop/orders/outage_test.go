package orders

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sillar-go/sillar/examples/shop/internal/platform"
	"github.com/sillar-go/sillar/repository/eventstore"
	"github.com/sillar-go/sillar/repository/eventstore/memevents"
	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagamem"
)

// participants stand for inventory and payments, without a network. Payments does not answer until up.
type participants struct {
	mu       sync.Mutex
	up       time.Time
	reserved map[string]string // by reservation, its state
	paid     map[string]string // by payment, its state
}

// price is what an order costs, in cents.
const price = 500

var errRefused = errors.New("dial tcp: connection refused")

func (p *participants) RoundTrip(r *http.Request) (*http.Response, error) {
	var body struct {
		OrderID string `json:"order_id"`
	}
	if r.Body != nil {
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	status, answer := http.StatusOK, "{}"
	switch what := parts[2]; {
	case what == "payments" && time.Now().Before(p.up):
		return nil, errRefused
	case what == "payments" && len(parts) == 3:
		id := paymentID(body.OrderID)
		if p.paid[id] == "refunded" {
			status, answer = http.StatusConflict, `{"detail":"too late"}`
			break
		}
		p.paid[id], answer = "captured", fmt.Sprintf(`{"payment_id":%q}`, id)
	case what == "payments":
		p.paid[parts[3]] = "refunded"
	case parts[3] == "check":
		answer = `{"available":true}`
	case r.Method == http.MethodDelete:
		p.reserved[parts[4]] = "released"
	case len(parts) == 4:
		id := reservationID(body.OrderID)
		p.reserved[id], answer = "reserved", fmt.Sprintf(`{"reservation_id":%q}`, id)
	default:
		p.reserved[parts[4]] = "committed"
	}
	return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(strings.NewReader(answer)), Request: r, ContentLength: int64(len(answer)),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}, nil
}

// gauges returns the figures of sagas by their status.
func gauges(t *testing.T, s *platform.Service) (sagas map[string]int64, oldest map[string]time.Duration) {
	t.Helper()
	families, err := s.Tel.Gatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sagas, oldest = map[string]int64{}, map[string]time.Duration{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			status := ""
			for _, l := range m.GetLabel() {
				if l.GetName() == "status" {
					status = l.GetValue()
				}
			}
			switch f.GetName() {
			case "sillar_saga_sagas":
				sagas[status] += int64(m.GetGauge().GetValue())
			case "sillar_saga_oldest_seconds":
				age := time.Duration(m.GetGauge().GetValue() * float64(time.Second))
				oldest[status] = max(oldest[status], age)
			}
		}
	}
	return sagas, oldest
}

// With payments down for a day no saga is stuck. Each ends soon after the recovery, money and stock are right, and the
// metrics and the page show what waits meanwhile.
func TestPaymentsDownForADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &participants{reserved: map[string]string{}, paid: map[string]string{}}
		sc := newScreen(t, p)
		store := memevents.New(memevents.Config{})
		orders := eventstore.Must(eventstore.NewAggregate(store, eventstore.Decider[Order, Event]{Evolve: evolve}, types,
			eventstore.AggregateConfig{Category: "order"}))
		clients, err := newPeers(sc.orders)
		if err != nil {
			t.Fatal(err)
		}
		h := &steps{orders: orders, log: sc.orders.Log, peers: clients}
		place := placeOrder(h)
		sagas := saga.Must(saga.New(sagamem.New(), saga.Config{Name: "orders", Logger: sc.orders.Log,
			MeterProvider: sc.orders.Tel.MeterProvider, OnChange: sc.page.OnSaga}, place, cancelOrder(h)))
		sc.attach(t, store, orders, sagas)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- sagas.Run(ctx) }()

		var ids []string
		order := func() {
			t.Helper()
			id := fmt.Sprintf("o%02d", len(ids))
			ids = append(ids, id)
			if _, err := place.Start(ctx, sagas, id, Placing{OrderID: id, UserID: "u", TotalCents: price,
				Items: []Item{{ProductID: "lamp", Quantity: 1}}}); err != nil {
				t.Fatal(err)
			}
		}
		order()
		time.Sleep(time.Minute)
		p.mu.Lock()
		p.up = time.Now().Add(24 * time.Hour)
		p.mu.Unlock()
		for range 12 {
			for range 4 {
				order()
			}
			time.Sleep(2*time.Hour - 25*time.Second) // twelve times: five minutes less than a day
		}
		for range 4 { // five minutes before the recovery
			order()
		}
		time.Sleep(5*time.Minute - 10*time.Second)
		waiting, oldest := gauges(t, sc.orders)
		if n := waiting["RUNNING"] + waiting["COMPENSATING"]; n < 10 || waiting["STUCK"] != 0 {
			t.Errorf("the metrics show %v of 52 orders that were placed meanwhile", waiting)
		}
		if age := max(oldest["RUNNING"], oldest["COMPENSATING"]); age < 12*time.Hour {
			t.Errorf("the metrics show that the oldest was started %v ago", oldest)
		}
		t.Logf("after a day: %v, oldest %v", waiting, oldest)
		open, err := sagas.Count(ctx, saga.Filter{Statuses: []saga.Status{saga.Running, saga.Compensating}})
		if err != nil {
			t.Fatal(err)
		}
		sc.shows(t, "open", fmt.Sprintf("<strong>%d under way</strong>", open),
			"equals 1 confirmed order", "compensating: ")
		order()
		time.Sleep(20 * time.Minute)
		if left, _ := gauges(t, sc.orders); left["RUNNING"]+left["COMPENSATING"]+left["STUCK"] != 0 {
			t.Errorf("20 minutes after the recovery the metrics show %v", left)
		}
		ended := map[saga.Status]int{}
		for _, id := range ids {
			r, err := sagas.Get(ctx, id)
			if err != nil {
				t.Fatal(err)
			}
			o, _, err := orders.Load(ctx, id)
			if err != nil {
				t.Fatal(err)
			}
			ended[r.Status]++
			paid, reserved := p.paid[paymentID(id)], p.reserved[reservationID(id)]
			switch {
			case r.Status == saga.Completed && o.Status == Paid && paid == "captured" && reserved == "committed":
			case r.Status == saga.Compensated && o.Status == Cancelled && paid != "captured" && reserved == "released":
			default:
				t.Errorf("%s: the saga is %s (%s), the order %s, the payment %q, the stock %q; %+v",
					id, r.Status, r.Cause, o.Status, paid, reserved, r.Steps)
			}
		}
		t.Logf("ended: %v", ended)
		sc.shows(t, "", "<strong>all ended</strong>", "54 orders in all",
			fmt.Sprintf("equals %d confirmed orders", ended[saga.Completed]))
		if ended[saga.Completed] < 4 {
			t.Errorf("ended: %v, want those completed that an open breaker kept from payments for less than %v", ended,
				confirmWithin)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
