package orders

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/breaker"
	"github.com/sillar-go/sillar/breaker/breakerhttp"
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

func (p *participants) peer(t *testing.T, name string, guard *platform.Guard) *platform.Peer {
	t.Helper()
	tr := breakerhttp.Must(breakerhttp.NewTransport(p, breakerhttp.Config{Breaker: breaker.Config{Name: name,
		Timeout: 5 * time.Second, Retry: breaker.Retry{Attempts: 3, Backoff: breaker.Exponential(50*time.Millisecond,
			time.Second)}}}))
	client := breakerhttp.Must(breakerhttp.NewClientOver(tr, "http://"+name))
	return platform.NewPeer(name, client, guard)
}

// gauges returns the figures of sagas by their status.
func gauges(t *testing.T, reader sdkmetric.Reader) (sagas map[string]int64, oldest map[string]time.Duration) {
	t.Helper()
	var got metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &got); err != nil {
		t.Fatal(err)
	}
	sagas, oldest = map[string]int64{}, map[string]time.Duration{}
	for _, scope := range got.ScopeMetrics {
		for _, m := range scope.Metrics {
			switch d := m.Data.(type) {
			case metricdata.Gauge[int64]:
				for _, p := range d.DataPoints {
					if status, ok := p.Attributes.Value("status"); ok && m.Name == "sillar.saga.sagas" {
						sagas[status.AsString()] += p.Value
					}
				}
			case metricdata.Gauge[float64]:
				for _, p := range d.DataPoints {
					if status, ok := p.Attributes.Value("status"); ok && m.Name == "sillar.saga.oldest" {
						age := time.Duration(p.Value * float64(time.Second))
						oldest[status.AsString()] = max(oldest[status.AsString()], age)
					}
				}
			}
		}
	}
	return sagas, oldest
}

// With payments down for a day no saga is stuck. Each ends soon after the recovery, money and stock are right, and the
// metrics show what waits meanwhile.
func TestPaymentsDownForADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys := authn.Must(authn.NewKeySet(authn.NewMemoryKeys(), authn.KeyConfig{}))
		log := slog.New(slog.DiscardHandler)
		guard, err := platform.NewGuard("orders", platform.Tokens{Keys: keys, Secret: []byte(strings.Repeat("s", 32))}, log,
			nil)
		if err != nil {
			t.Fatal(err)
		}
		p := &participants{reserved: map[string]string{}, paid: map[string]string{}}
		store := memevents.New(memevents.Config{})
		orders := eventstore.Must(eventstore.NewAggregate(store, eventstore.Decider[Order, Event]{Evolve: evolve}, types,
			eventstore.AggregateConfig{Category: "order"}))
		h := &steps{orders: orders, log: log,
			peers: &peers{inventory: p.peer(t, "inventory", guard), payments: p.peer(t, "payments", guard)}}
		place := placeOrder(h)
		reader := sdkmetric.NewManualReader()
		sagas := saga.Must(saga.New(sagamem.New(), saga.Config{Name: "orders", Logger: log,
			MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))}, place, cancelOrder(h)))
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- sagas.Run(ctx) }()

		var ids []string
		order := func() {
			t.Helper()
			id := fmt.Sprintf("o%02d", len(ids))
			ids = append(ids, id)
			if _, err := place.Start(ctx, sagas, id, Placing{OrderID: id, UserID: "u", TotalCents: 500,
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
		time.Sleep(5 * time.Minute)
		waiting, oldest := gauges(t, reader)
		if n := waiting["RUNNING"] + waiting["COMPENSATING"]; n < 10 || waiting["STUCK"] != 0 {
			t.Errorf("the metrics show %v of 52 orders that were placed meanwhile", waiting)
		}
		if age := max(oldest["RUNNING"], oldest["COMPENSATING"]); age < 12*time.Hour {
			t.Errorf("the metrics show that the oldest was started %v ago", oldest)
		}
		t.Logf("after a day: %v, oldest %v", waiting, oldest)
		order()
		time.Sleep(20 * time.Minute)
		if left, _ := gauges(t, reader); left["RUNNING"]+left["COMPENSATING"]+left["STUCK"] != 0 {
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
