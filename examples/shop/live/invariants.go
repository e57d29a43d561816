package live

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sillar-go/sillar/examples/shop/internal/platform"
)

// audit is the latest result of checking the invariants.
type audit struct {
	at                    time.Time
	held, standing        int64 // cents that were captured, and those of orders that stand
	open, stuck           int   // sagas
	reserved              int64
	shortest              int64 // what can be promised of the product of which there is least
	dead                  int
	wrongMoney, badMoney  bool // the sums differ and nothing explains it: now, and the time before too
	unknown               error
	negative              int64
	standingOrders, total int64
	facts
}

// facts are what the meters know of events.
type facts struct {
	groups              []string
	pending, duplicates float64
	lag                 float64 // seconds
}

// facts adds the meters of all services up.
func (f *figures) facts() facts {
	var out facts
	for _, r := range f.last {
		out.groups = append(out.groups, r.groups...)
		out.pending += r.pending
		out.duplicates += r.duplicates
		out.lag = max(out.lag, r.lag)
	}
	slices.Sort(out.groups)
	out.groups = slices.Compact(out.groups)
	return out
}

// standing says whether an order of a status has been paid for.
func standing(status string) bool {
	return slices.Contains([]string{"paid", "shipped", "delivered"}, status)
}

// look asks the services as an operator does, and reads the meters. Orders are asked before payments: what stands by
// then has been captured before, so the difference is money whose order is still on its way.
func (p *Page) look(ctx context.Context, before audit) (a audit) {
	a.at = time.Now()
	p.vmu.Lock()
	a.facts = p.view.facts
	p.vmu.Unlock()
	fail := func(err error) audit { a.unknown = err; return a }
	open := func() (n int, err error) {
		for _, status := range []string{"RUNNING", "COMPENSATING"} {
			var page platform.List[struct{}]
			if err := p.inside.get(ctx, "orders", "/api/v1/sagas?limit=200&status="+status, &page); err != nil {
				return 0, err
			}
			n += len(page.Items)
		}
		return n, nil
	}
	openBefore, err := open()
	if err != nil {
		return fail(err)
	}
	var orders, payments platform.List[platform.Total]
	if err := p.inside.get(ctx, "orders", "/api/v1/totals", &orders); err != nil {
		return fail(err)
	}
	if err := p.inside.get(ctx, "payments", "/api/v1/totals", &payments); err != nil {
		return fail(err)
	}
	if a.open, err = open(); err != nil {
		return fail(err)
	}
	var stuck platform.List[struct{}]
	if err := p.inside.get(ctx, "orders", "/api/v1/sagas?limit=200&status=STUCK", &stuck); err != nil {
		return fail(err)
	}
	a.stuck = len(stuck.Items)
	for _, t := range orders.Items {
		a.total += t.Count
		if standing(t.Status) {
			a.standing += t.Cents
			a.standingOrders += t.Count
		}
	}
	for _, t := range payments.Items {
		if t.Status == "captured" {
			a.held += t.Cents
		}
	}
	a.wrongMoney = a.held < a.standing || a.held > a.standing && openBefore+a.open+a.stuck == 0
	a.badMoney = a.wrongMoney && before.wrongMoney
	if err := p.stocks(ctx, &a); err != nil {
		return fail(err)
	}
	for _, g := range a.groups {
		dead, err := p.broker.DeadLetters(ctx, g, 100)
		if err != nil {
			return fail(err)
		}
		a.dead += len(dead)
	}
	return a
}

// stocks looks at every product.
func (p *Page) stocks(ctx context.Context, a *audit) error {
	for after, first := "", true; first || after != ""; first = false {
		var page platform.List[struct {
			OnHand    int64 `json:"on_hand"`
			Reserved  int64 `json:"reserved"`
			Available int64 `json:"available"`
		}]
		if err := p.inside.get(ctx, "inventory", "/api/v1/inventory?limit=200&after="+url.QueryEscape(after),
			&page); err != nil {
			return err
		}
		for i, s := range page.Items {
			if least := min(s.OnHand, s.Available); first && i == 0 || least < a.shortest {
				a.shortest = least
			}
			if s.OnHand < 0 || s.Available < 0 {
				a.negative++
			}
			a.reserved += s.Reserved
		}
		after = page.Next
	}
	return nil
}

// tile is an invariant as it is shown.
type tile struct {
	Name, Value, Note string
	State             string // ok, moving, bad
}

// broken are the names of the invariants that do not hold.
func (a audit) broken() string {
	var names []string
	for _, t := range a.tiles() {
		if t.State == "bad" {
			names = append(names, strings.ToLower(t.Name))
		}
	}
	return strings.Join(names, ", ")
}

// tiles are the invariants strip.
func (a audit) tiles() []tile {
	if a.at.IsZero() || a.unknown != nil {
		return []tile{{"Invariants", "not known", "a service does not answer", "moving"}}
	}
	money := tile{"Money captured", euros(a.held), "equals " + plural(a.standingOrders, "confirmed order"), "ok"}
	switch {
	case a.badMoney:
		money.State, money.Note = "bad", "confirmed orders are worth "+euros(a.standing)
	case a.wrongMoney:
		money.State, money.Note = "moving", "confirmed "+euros(a.standing)+", looking again"
	case a.held != a.standing:
		money.State, money.Note = "moving", "confirmed "+euros(a.standing)+", "+euros(a.held-a.standing)+" on its way"
	}
	stock := tile{"Scarcest product", fmt.Sprintf("%d in stock", a.shortest),
		fmt.Sprintf("never below 0; %d reserved by orders", a.reserved), "ok"}
	if a.negative > 0 {
		stock.State, stock.Value = "bad", fmt.Sprintf("%d negative", a.negative)
	}
	sagas := tile{"Sagas", "all ended", plural(a.total, "order") + " in all", "ok"}
	switch {
	case a.stuck > 0:
		sagas.State, sagas.Value, sagas.Note = "bad", fmt.Sprintf("%d stuck", a.stuck), "shop sagas retry, or skip"
	case a.open > 0:
		sagas.State, sagas.Value = "moving", fmt.Sprintf("%d under way", a.open)
	}
	lag := tile{"Oldest unpublished event", fmt.Sprintf("%.1f s", a.lag), plural(int64(a.pending), "event") +
		" in outboxes",
		"ok"}
	if a.pending > 0 && a.lag > 1 {
		lag.State = "moving"
	}
	dead := tile{"Messages given up", fmt.Sprint(a.dead), plural(int64(a.duplicates), "duplicate") + " ignored", "ok"}
	if a.dead > 0 {
		dead.State = "bad"
		dead.Note = "shop messages dead"
	}
	return []tile{money, stock, sagas, lag, dead}
}
