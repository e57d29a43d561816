package orders

import (
	"errors"
	"testing"
	"time"
)

// from is an order that the events before a state have made.
func from(s Status) Order {
	h := Head{OrderID: "o", UserID: "u", TotalCents: 500, At: time.Unix(1, 0)}
	history := map[Status][]Event{
		"":        nil,
		Pending:   {Created{h, []Item{{"p", "Lamp", 1, 500}}}},
		Paid:      {Created{h, nil}, WasPaid{h, "pay-o"}},
		Shipped:   {Created{h, nil}, WasPaid{h, "pay-o"}, WasShipped{h}},
		Delivered: {Created{h, nil}, WasPaid{h, "pay-o"}, WasShipped{h}, WasDelivered{h}},
		Cancelled: {Created{h, nil}, WasCancelled{h, "no"}},
	}
	var o Order
	for _, e := range history[s] {
		o = evolve(o, e)
	}
	return o
}

var decisions = map[string]func(Order) ([]Event, error){
	"pay":           func(o Order) ([]Event, error) { return o.pay("pay-o") },
	"pay otherwise": func(o Order) ([]Event, error) { return o.pay("another") },
	"take back":     func(o Order) ([]Event, error) { return o.cancelPending("no") },
	"cancel":        func(o Order) ([]Event, error) { return o.cancelPaid("no") },
	"ship":          Order.ship,
	"deliver":       Order.deliver,
}

func TestOrderDecidesByItsState(t *testing.T) {
	decisions := decisions
	const refused, nothing = Status("refused"), Status("nothing")
	for name, want := range map[string]map[Status]Status{
		"pay": {Pending: Paid, Paid: nothing, Shipped: refused, Delivered: refused, Cancelled: refused,
			"": refused},
		"pay otherwise": {Pending: Paid, Paid: refused, Cancelled: refused},
		"take back": {"": nothing, Pending: Cancelled, Cancelled: nothing, Paid: refused, Shipped: refused,
			Delivered: refused},
		"cancel":  {"": refused, Pending: refused, Paid: Cancelled, Cancelled: nothing, Shipped: refused, Delivered: refused},
		"ship":    {Pending: refused, Paid: Shipped, Shipped: nothing, Delivered: refused, Cancelled: refused},
		"deliver": {Paid: refused, Shipped: Delivered, Delivered: nothing, Cancelled: refused},
	} {
		for state, becomes := range want {
			o := from(state)
			events, err := decisions[name](o)
			got := nothing
			switch {
			case errors.Is(err, ErrState):
				got = refused
			case err != nil:
				t.Fatal(err)
			case len(events) > 0:
				for _, e := range events {
					o = evolve(o, e)
				}
				got = o.Status
			}
			if got != becomes {
				t.Errorf("%s an order that is %q: %s, want %s", name, state, got, becomes)
			}
		}
	}
}

func TestEventsTellWhoseTheyAre(t *testing.T) {
	events, err := from(Paid).cancelPaid("changed my mind")
	if err != nil || len(events) != 1 {
		t.Fatal(events, err)
	}
	if h := events[0].head(); h.OrderID != "o" || h.UserID != "u" || h.TotalCents != 500 || h.At.IsZero() {
		t.Errorf("head %+v", h)
	}
	if o := evolve(from(Paid), events[0]); o.Reason != "changed my mind" || o.PaymentID != "pay-o" {
		t.Errorf("order %+v", o)
	}
}
