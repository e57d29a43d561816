package simulation_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sillar-go/sillar/breaker/breakertest"
	"github.com/sillar-go/sillar/internal/faultdraw"
	"github.com/sillar-go/sillar/messaging/memory"
)

const password = "a fine password"

// rates are the parts of calls that fail.
type rates struct{ HTTP, Broker, Database float64 }

// settings are what a simulation depends on.
type settings struct {
	Seed   uint64
	Orders int
	Rates  rates
	Bug    bug
	Log    io.Writer // of the services and of the simulation; nil: none
}

// world is a shop in one process, on a network, databases and a broker in memory, and its customers.
type world struct {
	settings
	draw   *faultdraw.Draw
	net    *network
	broker *memory.Broker
	disks  map[string]*disk
	log    io.Writer
	wg     sync.WaitGroup // of processes

	mu      sync.Mutex
	running map[string]*process
	down    map[string]time.Duration
	orders  map[string]*placed // by key
	token   string             // of the customer; hashing a password takes longer than an order

	findings []string
}

// placed is what a customer was told of an order.
type placed struct {
	id        string
	refused   int // the status, for one that was not accepted
	cancelled bool
}

func newWorld(cfg settings) *world {
	w := &world{settings: cfg, draw: faultdraw.New(cfg.Seed, 0), disks: map[string]*disk{},
		running: map[string]*process{}, down: map[string]time.Duration{}, orders: map[string]*placed{},
		log: io.Discard}
	if cfg.Log != nil {
		w.log = &lockedWriter{w: cfg.Log}
	}
	w.net = newNetwork(w.draw)
	w.broker = memory.Must(memory.New(memory.Config{Source: "shop", Logger: slog.New(slog.DiscardHandler)}))
	for name := range services {
		w.disks[name] = &disk{name: name, draw: w.draw, bug: cfg.Bug}
	}
	return w
}

// close ends what outlives the processes.
func (w *world) close(t *testing.T) {
	t.Helper()
	for _, d := range w.disks {
		if err := d.close(); err != nil {
			t.Error(err)
		}
	}
	if err := w.broker.Close(); err != nil {
		t.Error(err)
	}
}

type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

func (w *world) logf(format string, args ...any) {
	_, _ = fmt.Fprintf(w.log, time.Now().Format("15:04:05.000 ")+format+"\n", args...)
}

func (w *world) findf(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.findings = append(w.findings, fmt.Sprintf(format, args...))
}

// between draws a duration.
func (w *world) between(place string, low, high time.Duration) time.Duration {
	return low + time.Duration(w.draw.Part(place)*float64(high-low))
}

// run lets customers buy while services crash, waits until the shop is quiet, and shuts it down.
func (w *world) run() {
	ctx, stop := context.WithCancel(context.Background())
	var supervisors sync.WaitGroup
	for _, name := range slices.Sorted(maps.Keys(services)) {
		supervisors.Go(func() { w.supervise(ctx, name) })
	}
	shopping, closing := context.WithCancel(ctx)
	var chaos, customers sync.WaitGroup
	chaos.Go(func() { w.crashes(shopping) })
	chaos.Go(func() { w.cancels(shopping) })
	for c := range customerCount {
		customers.Go(func() { w.customer(shopping, c) })
	}
	customers.Wait()
	closing()
	chaos.Wait()
	w.settle(ctx)
	stop()
	supervisors.Wait()
	w.wg.Wait()
}

// crashes crashes services until ctx ends.
func (w *world) crashes(ctx context.Context) {
	names := slices.Sorted(maps.Keys(services))
	for sleep(ctx, w.between("crash", 2*time.Second, 40*time.Second)) == nil {
		name := names[int(w.draw.Part("crashed")*float64(len(names)))]
		down := w.between("down", 0, 5*time.Second)
		if w.draw.Part("long") < 0.2 {
			down = w.between("long down", 30*time.Second, 2*time.Minute)
		}
		w.crashFor(name, down)
	}
}

func (w *world) caller(name string) (*caller, func()) {
	tr := &http.Transport{DialContext: w.net.host(name).DialContext, IdleConnTimeout: 30 * time.Second}
	c := &http.Client{Transport: breakertest.Lossy(tr, w.Seed+uint64(len(name)), w.Rates.HTTP), Timeout: 30 * time.Second}
	return &caller{w: w, client: c}, tr.CloseIdleConnections
}

// signedIn returns the token of the last login, "" for none.
func (w *world) signedIn() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.token
}

func (w *world) signIn(token string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.token = token
}

// customer places orders, one after the other.
func (w *world) customer(ctx context.Context, n int) {
	c, end := w.caller(fmt.Sprint("customer", n))
	defer end()
	for i := n; i < w.Orders; i += customerCount {
		key := fmt.Sprint("order-", i)
		_ = sleep(ctx, w.between("pause "+key, 0, 15*time.Second))
		type line struct {
			ProductID string `json:"product_id"`
			Quantity  int    `json:"quantity"`
		}
		body := struct {
			Items  []line `json:"items"`
			Method string `json:"payment_method"`
		}{Method: pick(w, "method "+key, methods)}
		for _, good := range goods {
			if w.draw.Part("buy "+key+" "+good) < 0.4 || len(body.Items) == 0 && good == goods[len(goods)-1] {
				body.Items = append(body.Items, line{good, 1 + int(3*w.draw.Part("quantity "+key+" "+good))})
			}
		}
		var o order
		status := c.call(ctx, "POST", "http://orders:80/api/v1/orders", key, body, &o)
		w.logf("%s is order %s: %d %s", key, o.ID, status, o.Status)
		w.mu.Lock()
		w.orders[key] = &placed{id: o.ID}
		if status >= 300 {
			w.orders[key].refused = status
		}
		w.mu.Unlock()
	}
}

// cancels cancels orders: those that are being placed, and some of the others.
func (w *world) cancels(ctx context.Context) {
	c, end := w.caller("canceller")
	defer end()
	for sleep(ctx, w.between("cancel", 100*time.Millisecond, 3*time.Second)) == nil {
		var page struct {
			Items []order `json:"items"`
		}
		c.call(ctx, "GET", "http://orders:80/api/v1/orders?limit=5", "", nil, &page)
		pending := slices.DeleteFunc(slices.Clone(page.Items), func(o order) bool { return o.Status != "pending" })
		if len(pending) == 0 && w.draw.Part("cancel others") < 0.2 {
			pending = page.Items
		}
		if len(pending) == 0 {
			continue
		}
		o := pick(w, "cancelled", pending)
		var now order
		status := c.call(ctx, "POST", "http://orders:80/api/v1/orders/"+o.ID+"/cancel", "", struct{}{}, &now)
		w.logf("cancel %s (%s): %d %s", o.ID, o.Status, status, now.Status)
		if status/100 == 2 { // also when it is accepted only, or the order was paid meanwhile
			w.mu.Lock()
			w.orders["cancel "+o.ID] = &placed{id: o.ID, cancelled: true}
			w.mu.Unlock()
		}
	}
}

// settle waits until the shop is quiet.
func (w *world) settle(ctx context.Context) {
	within := quietWithin
	if w.Bug != noBug { // what is lost does not come
		within = quietWithin / 8
	}
	for end := time.Now().Add(within); ; _ = sleep(ctx, 10*time.Second) {
		busy := w.busy()
		if busy == "" {
			break
		}
		if time.Now().After(end) {
			w.findf("after %s: %s", within, busy)
			break
		}
	}
	_ = sleep(ctx, 5*time.Minute) // for what comes twice
}

func (w *world) busy() string {
	var busy []string
	for name, n := range map[string]string{
		"orders":   w.count("orders", "SELECT count(*) FROM sillar_sagas WHERE status NOT IN ('COMPLETED', 'COMPENSATED')"),
		"outboxes": w.outboxes(),
		"letters":  w.missing(),
	} {
		if n != "0" && n != "" {
			busy = append(busy, name+": "+n)
		}
	}
	slices.Sort(busy)
	return strings.Join(busy, ", ")
}
