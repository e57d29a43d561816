package payments

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sillar-go/sillar/examples/shop/internal/platform"
	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/sqldb"
)

func service(t *testing.T, dsn string) (*Service, *simulator) {
	t.Helper()
	db, err := sqldb.Open(t.Context(), dsn, sqldb.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	s, err := open(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	p := newSimulator(db)
	s.processor, s.log = p, slog.New(slog.DiscardHandler)
	return s, p
}

// dying is a processor whose caller dies as soon as it has taken the money.
type dying struct {
	Processor
	die context.CancelFunc
}

func (d dying) Charge(ctx context.Context, c Charge) error {
	err := d.Processor.Charge(ctx, c)
	d.die()
	return err
}

func visa(order string) Charge {
	return Charge{Key: "s-" + order + "/pay/do", OrderID: order, UserID: "u-ana", AmountCents: 100, Method: "pm_card_visa"}
}

func TestCrashAfterTheCharge(t *testing.T) {
	for name, dsn := range databases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, processor := service(t, dsn(t))
			crash := func(c Charge) {
				ctx, die := context.WithCancel(t.Context())
				s.processor = dying{processor, die}
				if _, err := s.Capture(ctx, c); err == nil {
					t.Error("the crash did not show")
				}
				s.processor = processor
				if _, err := s.payments.Get(t.Context(), PaymentID(c.OrderID)); !errors.Is(err, repository.ErrNotFound) {
					t.Errorf("after the crash: %v", err)
				}
			}
			held := func(want int64) {
				t.Helper()
				if got, err := processor.Held(t.Context()); err != nil || got != want {
					t.Errorf("the processor holds %d, %v; want %d", got, err, want)
				}
			}
			crash(visa("o1"))
			held(100)
			if p, err := s.Capture(t.Context(), visa("o1")); err != nil || p.Status != Captured {
				t.Errorf("the same again: %+v, %v", p, err)
			}
			held(100)

			crash(visa("o2"))
			held(200)
			if p, err := s.Refund(t.Context(), "s-o2/pay/undo", PaymentID("o2")); err != nil || p.Status != "" {
				t.Errorf("compensation: %+v, %v", p, err)
			}
			held(100)
			var p *platform.Problem
			if _, err := s.Capture(t.Context(), visa("o2")); !errors.As(err, &p) || p.Status != 409 {
				t.Errorf("capture after its compensation: %v", err)
			}
			held(100)
		})
	}
}

// hasty is a processor during whose charge something else happens.
type hasty struct {
	Processor
	then func()
}

func (h hasty) Charge(ctx context.Context, c Charge) error {
	err := h.Processor.Charge(ctx, c)
	h.then()
	return err
}

func TestCompensationBetweenChargeAndNote(t *testing.T) {
	s, processor := service(t, databases["sqlite"](t))
	other := *s
	s.processor = hasty{processor, func() {
		if _, err := other.Refund(t.Context(), "s-o1/pay/undo", PaymentID("o1")); err != nil {
			t.Errorf("compensation: %v", err)
		}
	}}
	var p *platform.Problem
	if _, err := s.Capture(t.Context(), visa("o1")); !errors.As(err, &p) || p.Type != errTooLate.Type {
		t.Errorf("capture: %v", err)
	}
	if held, err := processor.Held(t.Context()); err != nil || held != 0 {
		t.Errorf("the processor holds %d, %v", held, err)
	}
}

// Captures, second captures, compensations and captures by another saga come all at once. What the processor holds is
// what the payments say, and no order is paid twice.
func TestMoneyAddsUp(t *testing.T) {
	for name, dsn := range databases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, processor := service(t, dsn(t))
			const orders = 32
			var all sync.WaitGroup
			var captured atomic.Int64
			tolerate := func(what string, err error) {
				var p *platform.Problem
				if err != nil && (!errors.As(err, &p) || p.Status != 409) {
					t.Errorf("%s: %v", what, err)
				}
			}
			for i := range orders {
				c := visa(fmt.Sprint("o", i))
				rival := c
				rival.Key = "rival-" + c.Key
				for range 2 {
					all.Go(func() { _, err := s.Capture(t.Context(), c); tolerate("capture", err) })
				}
				switch i % 3 {
				case 1:
					all.Go(func() { _, err := s.Capture(t.Context(), rival); tolerate("rival", err) })
				case 2:
					all.Go(func() {
						_, err := s.Refund(t.Context(), "s-"+c.OrderID+"/pay/undo", PaymentID(c.OrderID))
						tolerate("refund", err)
					})
				}
			}
			all.Wait()
			for p, err := range s.payments.Each(t.Context(), repository.Query[Payment]{}) {
				if err != nil {
					t.Fatal(err)
				}
				if p.Status == Captured {
					captured.Add(p.AmountCents)
				}
			}
			want := int64(0)
			for i := range orders {
				if i%3 != 2 {
					want += 100
				}
			}
			if held, err := processor.Held(t.Context()); err != nil || held != captured.Load() || held != want {
				t.Errorf("the processor holds %d, the payments say %d, want %d; %v", held, captured.Load(), want, err)
			}
		})
	}
}

func TestProcessorTakesItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newSimulator(nil)
		start := time.Now()
		if err := p.arrive(t.Context(), 2*time.Second); err != nil || time.Since(start) != 2*time.Second {
			t.Errorf("slow card: %v after %v", err, time.Since(start))
		}
		p.SetMode(ModeSlow)
		start = time.Now()
		if err := p.arrive(t.Context(), 0); err != nil || time.Since(start) != 3*time.Second {
			t.Errorf("slow processor: %v after %v", err, time.Since(start))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start = time.Now()
		if err := p.arrive(ctx, 0); !errors.Is(err, ErrProcessor) || time.Since(start) != time.Second {
			t.Errorf("slower than its caller waits: %v after %v", err, time.Since(start))
		}
	})
}
