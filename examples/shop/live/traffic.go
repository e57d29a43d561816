package live

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/sillar-go/sillar/examples/shop/internal/platform"
	"github.com/sillar-go/sillar/examples/shop/internal/shopclient"
)

// Bounds of what the controls set going.
const (
	maxUnderWay = 48 // requests at once; more are refused
	loadFor     = 30 * time.Second
	loadEvery   = 100 * time.Millisecond
	racers      = 12
	raceStock   = 3
	lowStock    = 20
	fullStock   = 200
)

// traffic is the customer behind the controls. Its requests go through the gateway, as any customer's requests do.
type traffic struct {
	inside  inside
	gateway string
	note    func(format string, args ...any)
	slots   chan struct{}
	wg      sync.WaitGroup

	mu       sync.Mutex
	ctx      context.Context // until close
	cancel   context.CancelFunc
	stopLoad context.CancelFunc

	signing  sync.Mutex // one at a time signs up
	customer *shopclient.Client
}

var (
	errBusy = platform.Fail(http.StatusTooManyRequests, "busy",
		"as many requests as this page makes at once are under way already")
	errClosed = platform.Fail(http.StatusServiceUnavailable, "closed", "the shop closes at this moment")
)

func newTraffic(in inside, gateway string, note func(format string, args ...any)) *traffic {
	t := &traffic{inside: in, gateway: gateway, note: note, slots: make(chan struct{}, maxUnderWay)}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t
}

// close ends what has been begun, and waits for it. Nothing begins after it.
func (t *traffic) close() {
	t.mu.Lock()
	t.cancel()
	t.mu.Unlock()
	t.wg.Wait()
}

// start does something beside the request that asked for it. The page's end ends it.
func (t *traffic) start(do func(ctx context.Context) error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.startLocked(do)
}

func (t *traffic) startLocked(do func(ctx context.Context) error) error {
	ctx := t.ctx
	if ctx.Err() != nil {
		return errClosed
	}
	select {
	case t.slots <- struct{}{}:
	default:
		return errBusy
	}
	t.wg.Go(func() {
		defer func() { <-t.slots }()
		if err := do(ctx); err != nil && ctx.Err() == nil {
			t.note("%v", err)
		}
	})
	return nil
}

// as returns the customer, who signs up first.
func (t *traffic) as(ctx context.Context) (*shopclient.Client, error) {
	t.signing.Lock()
	defer t.signing.Unlock()
	if t.customer != nil {
		return t.customer, nil
	}
	name, password := "visitor-"+uuid.NewString()[:8], uuid.NewString()
	if _, err := shopclient.Anyone(t.gateway, name).Want(ctx, 201, "POST", "/users/api/v1/users",
		map[string]string{"username": name, "email": name + "@example.com", "password": password}); err != nil {
		return nil, fmt.Errorf("a customer could not sign up: %w", err)
	}
	// The token is renewed with the context that it was got with, which must outlive this request.
	c, err := shopclient.Login(context.WithoutCancel(ctx), t.gateway, name, password, name)
	if err != nil {
		return nil, err
	}
	t.customer = c
	return c, nil
}

// product is one of the catalogue.
type product struct {
	ID, Name string
}

// catalogue are the products that there are. The last one is what races are about; the others are ordered.
func (t *traffic) catalogue(ctx context.Context) ([]product, error) {
	var page platform.List[product]
	if err := t.inside.get(ctx, "products", "/api/v1/products?limit=50", &page); err != nil {
		return nil, err
	}
	if len(page.Items) < 2 {
		return nil, errors.New("the catalogue is too small: start the shop with --seed")
	}
	return page.Items, nil
}

type stockView struct {
	Reserved  int64 `json:"reserved"`
	Available int64 `json:"available"`
}

// stock is that of a product. After the start of a shop the stock appears shortly after its product.
func (t *traffic) stock(ctx context.Context, productID string) (stockView, error) {
	return shopclient.Until(ctx, "stock of "+productID, func() (s stockView, _ bool, err error) {
		err = t.inside.get(ctx, "inventory", "/api/v1/inventory/"+url.PathEscape(productID), &s)
		return s, err == nil, err
	})
}

// shelve sets how many of a product may be promised.
func (t *traffic) shelve(ctx context.Context, productID string, available int64) error {
	s, err := t.stock(ctx, productID)
	if err != nil {
		return err
	}
	return t.inside.put(ctx, "inventory", "/api/v1/inventory/"+url.PathEscape(productID),
		map[string]int64{"on_hand": s.Reserved + available})
}

// outcome is what became of a request for an order.
type outcome struct{ id, status string }

// place asks for an order. A key makes the request once; "" makes up a new one.
func (t *traffic) place(ctx context.Context, productID string, quantity int, card, key string) (outcome, error) {
	c, err := t.as(ctx)
	if err != nil {
		return outcome{}, err
	}
	id := uuid.NewString()[:8]
	if key == "" {
		key = "live-" + id
	}
	a, err := c.Do(ctx, "POST", "/orders/api/v1/orders", map[string]any{
		"items": []map[string]any{{"product_id": productID, "quantity": quantity}}, "payment_method": card},
		"Idempotency-Key", key, "X-Correlation-ID", "live-"+id)
	if err != nil {
		return outcome{}, fmt.Errorf("an order got no answer: %w", err)
	}
	if a.Status != 201 && a.Status != 202 {
		return outcome{}, fmt.Errorf("an order was refused: %d, %s", a.Status, a.Field("detail"))
	}
	return outcome{a.Field("id"), a.Field("status")}, nil
}

// any is one order of something, with shelves that are filled when they are low.
func (t *traffic) any(ctx context.Context, card string) error {
	list, err := t.catalogue(ctx)
	if err != nil {
		return err
	}
	p := list[rand.IntN(len(list)-1)]
	if s, err := t.stock(ctx, p.ID); err != nil {
		return err
	} else if s.Available < lowStock {
		if err := t.shelve(ctx, p.ID, fullStock); err != nil {
			return err
		}
	}
	_, err = t.place(ctx, p.ID, 1+rand.IntN(2), card, "")
	return err
}

// load places orders for a while, or ends the load that there is.
func (t *traffic) load() (running bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopLoad != nil {
		t.stopLoad()
		return false, nil
	}
	ctx, stop := context.WithTimeout(t.ctx, loadFor)
	if err := t.startLocked(func(context.Context) error { t.orders(ctx); return nil }); err != nil {
		stop()
		return false, err
	}
	t.stopLoad = stop
	return true, nil
}

// orders places orders until ctx ends, every tenth with a card that is declined.
func (t *traffic) orders(ctx context.Context) {
	tick := time.NewTicker(loadEvery)
	defer tick.Stop()
	sent, missed := 0, 0
	for ctx.Err() == nil {
		card := "pm_card_visa"
		if (sent+missed)%10 == 9 {
			card = "pm_card_declined"
		}
		if t.start(func(ctx context.Context) error { return t.any(ctx, card) }) == nil {
			sent++
		} else {
			missed++
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	t.mu.Lock()
	t.stopLoad()
	t.stopLoad = nil
	t.mu.Unlock()
	if missed > 0 {
		t.note("The load is over: %d orders; %d more were held back, the shop was too slow.", sent, missed)
	} else {
		t.note("The load is over: %d orders.", sent)
	}
}

func (t *traffic) loading() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.stopLoad != nil
}

// together runs n requests together, and returns what became of them.
func (t *traffic) together(ctx context.Context, n int,
	do func(ctx context.Context, i int) (outcome, error)) (out []outcome, err error) {
	if _, err := t.as(ctx); err != nil { // signing up is no part of the race
		return nil, err
	}
	results, errs := make([]outcome, n), make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { results[i], errs[i] = do(ctx, i) })
	}
	wg.Wait()
	return results, errors.Join(errs...)
}

// race has many customers want the last few of a product in the same moment.
func (t *traffic) race(ctx context.Context) error {
	list, err := t.catalogue(ctx)
	if err != nil {
		return err
	}
	p := list[len(list)-1]
	if err := t.shelve(ctx, p.ID, raceStock); err != nil {
		return err
	}
	got, err := t.together(ctx, racers, func(ctx context.Context, _ int) (outcome, error) {
		return t.place(ctx, p.ID, 1, "pm_card_visa", "")
	})
	if err != nil {
		return err
	}
	n := count(got)
	if n["pending"] > 0 {
		t.note("%d orders at once for the last %d of %q: %d still under way.", racers, raceStock, p.Name, n["pending"])
		if got, err = t.settle(ctx, got); err != nil {
			return err
		}
		n = count(got)
	}
	t.note("%d orders at once for the last %d of %q: %d paid, %d compensated.", racers, raceStock, p.Name, n["paid"],
		n["cancelled"])
	return nil
}

// count returns how many orders have each status.
func count(orders []outcome) map[string]int {
	n := map[string]int{}
	for _, o := range orders {
		n[o.status]++
	}
	return n
}

// settle waits until none of the orders is pending.
func (t *traffic) settle(ctx context.Context, orders []outcome) ([]outcome, error) {
	for i, o := range orders {
		if o.status != "pending" {
			continue
		}
		status, err := shopclient.Until(ctx, "order "+o.id+" settled", func() (string, bool, error) {
			var now struct {
				Status string `json:"status"`
			}
			err := t.inside.get(ctx, "orders", "/api/v1/orders/"+url.PathEscape(o.id), &now)
			return now.Status, now.Status != "pending", err
		})
		if err != nil {
			return orders, err
		}
		orders[i].status = status
	}
	return orders, nil
}

// repeat sends one request several times at once, as an impatient client does.
func (t *traffic) repeat(ctx context.Context) error {
	list, err := t.catalogue(ctx)
	if err != nil {
		return err
	}
	key := "live-" + uuid.NewString()[:8]
	got, err := t.together(ctx, 3, func(ctx context.Context, _ int) (outcome, error) {
		return t.place(ctx, list[0].ID, 1, "pm_card_visa", key)
	})
	if err != nil {
		return err
	}
	ids := map[string]bool{}
	for _, o := range got {
		ids[o.id] = true
	}
	t.note("One request, sent %d times at once: %s.", len(got), plural(len(ids), "order"))
	return nil
}

func plural[N int | int64](n N, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprint(n, " ", what, "s")
}
