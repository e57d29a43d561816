package payments

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"

	"github.com/sillar-go/sillar/examples/shop/internal/platform"
	"github.com/sillar-go/sillar/observability"
	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/saga/barrier"
)

// Service has the use cases of payments. It always calls the processor before the transaction that stores the result:
// a crash between the two leaves a charge that the same request finds again, and that its compensation voids.
type Service struct {
	tx        repository.Transactor
	payments  Repository
	barrier   *barrier.Barrier
	processor Processor
	log       *slog.Logger
}

var (
	errTooLate = platform.Fail(http.StatusConflict, "too-late", "the payment was cancelled before it was made")
	errPaid    = platform.Fail(http.StatusConflict, "already-paid", "the order has been paid already")
	errReused  = platform.Fail(http.StatusUnprocessableEntity, "idempotency-key",
		"the Idempotency-Key was used for another request",
		platform.FieldError{Field: "header.Idempotency-Key", Detail: "was used for another request"})
)

// Capture takes the money of an order. The same request again returns the payment as it is now.
func (s *Service) Capture(ctx context.Context, c Charge) (Payment, error) {
	p, found, err := s.get(ctx, PaymentID(c.OrderID))
	switch {
	case err != nil:
		return Payment{}, err
	case found && p.ChargeKey == c.Key && !p.same(c):
		return Payment{}, errReused
	case found && p.Status != Declined && p.ChargeKey == c.Key:
		return p, nil
	case found && p.Status != Declined:
		return Payment{}, errPaid
	}
	if err := s.charge(ctx, c); err != nil {
		return Payment{}, err
	}
	err = s.inTx(ctx, func(ctx context.Context) error {
		return s.barrier.Do(ctx, c.Key, func(ctx context.Context) error { return s.note(ctx, c, Captured, "") })
	})
	var mine *platform.Problem
	switch {
	case errors.Is(err, barrier.ErrTooLate):
		return Payment{}, s.giveBack(ctx, c.Key, errTooLate)
	case errors.As(err, &mine):
		return Payment{}, s.giveBack(ctx, c.Key, mine)
	case errors.Is(err, barrier.ErrKey):
		return Payment{}, badKey()
	case err != nil:
		return Payment{}, err
	}
	return s.payments.Get(ctx, PaymentID(c.OrderID))
}

// charge has the processor take the money, and makes problems of its refusals. A decline is noted, so that it can be
// seen, but the barrier does not mark it: nothing happened.
func (s *Service) charge(ctx context.Context, c Charge) error {
	refusal, err := observability.TrackDependency(ctx, "payment-processor", "charge",
		func(ctx context.Context) (error, error) {
			err := s.processor.Charge(ctx, c)
			if errors.As(err, new(*DeclinedError)) || errors.Is(err, ErrMethod) || errors.Is(err, ErrVoided) ||
				errors.Is(err, ErrKeyReused) {
				return err, nil // the processor works
			}
			return nil, err
		})
	err = cmp.Or(refusal, err)
	var declined *DeclinedError
	switch {
	case errors.As(err, &declined):
		if err := s.inTx(ctx,
			func(ctx context.Context) error { return s.note(ctx, c, Declined, declined.Reason) }); err != nil {
			return err
		}
		return platform.Fail(http.StatusPaymentRequired, "card-declined", declined.Reason,
			platform.FieldError{Field: "payment_method", Detail: declined.Reason})
	case errors.Is(err, ErrMethod):
		return platform.Invalid("payment_method", "there is no such payment method")
	case errors.Is(err, ErrVoided):
		return errTooLate
	case errors.Is(err, ErrKeyReused):
		return errReused
	}
	return s.answered(ctx, err)
}

// answered logs the processor's error and returns a problem without its text.
func (s *Service) answered(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	s.log.WarnContext(ctx, "the processor did not answer", "error", err)
	return platform.Fail(http.StatusServiceUnavailable, "processor-unavailable",
		"the payment processor does not answer: try again")
}

// giveBack voids a charge and returns why. While the void fails, the charge is in doubt.
func (s *Service) giveBack(ctx context.Context, key string, why error) error {
	_, err := observability.TrackDependency(ctx, "payment-processor", "void", func(ctx context.Context) (struct{}, error) {
		return struct{}{}, s.processor.Void(ctx, key)
	})
	if err := s.answered(ctx, err); err != nil {
		return err
	}
	return why
}

// inTx is a transaction that runs again when it lost against another one that made the same payment: now it finds it.
func (s *Service) inTx(ctx context.Context, fn func(ctx context.Context) error) error {
	err := s.tx.InTx(ctx, fn)
	if errors.Is(err, repository.ErrUnique) {
		err = s.tx.InTx(ctx, fn)
	}
	return err
}

// note stores what became of a charge. It does not touch a payment that was captured.
func (s *Service) note(ctx context.Context, c Charge, status Status, reason string) error {
	p := Payment{Meta: repository.Meta{ID: PaymentID(c.OrderID)}, OrderID: c.OrderID, UserID: c.UserID,
		AmountCents: c.AmountCents,
		Method:      c.Method, Status: status, Reason: reason, ChargeKey: c.Key}
	old, found, err := s.get(ctx, p.ID)
	if err != nil {
		return err
	}
	if found && old.ChargeKey == c.Key && old.Status != Declined {
		return nil
	}
	if !found {
		_, err := s.payments.Create(ctx, p)
		return err
	}
	_, err = s.payments.Update(ctx, p.ID, func(_ context.Context, old *Payment) error {
		if old.Status != Declined {
			return errPaid
		}
		p.Meta = old.Meta
		*old = p
		return nil
	})
	return err
}

// Refund gives the money of a payment back. The compensation of a charge (key .../undo) finds it by its key, made or
// not; every other refund (key .../do) by the payment's id. Both may come again.
func (s *Service) Refund(ctx context.Context, key, id string) (Payment, error) {
	if step, undo := strings.CutSuffix(key, "/undo"); undo {
		return s.undo(ctx, key, step+"/do", id)
	}
	p, err := s.payments.Get(ctx, id)
	if err != nil {
		return Payment{}, err
	}
	if p.Status == Declined {
		return Payment{}, platform.Fail(http.StatusConflict, "not-captured",
			"the payment was declined: there is nothing to give back")
	}
	if other, found, err := s.one(ctx, byRefund.Eq(key)); err != nil {
		return Payment{}, err
	} else if found && other.ID != id {
		return Payment{}, errReused
	}
	return s.refund(ctx, key, p.ChargeKey, id)
}

func (s *Service) undo(ctx context.Context, key, charge, id string) (Payment, error) {
	if p, found, err := s.one(ctx, byCharge.Eq(charge)); err != nil {
		return Payment{}, err
	} else if found && p.ID != id {
		return Payment{}, errReused
	}
	return s.refund(ctx, key, charge, id)
}

// refund voids a charge and notes it. A payment that never came has no Status.
func (s *Service) refund(ctx context.Context, key, charge, id string) (Payment, error) {
	if err := s.answered(ctx, s.processor.Void(ctx, charge)); err != nil {
		return Payment{}, err
	}
	err := s.inTx(ctx, func(ctx context.Context) error {
		return s.barrier.Do(ctx, key, func(ctx context.Context) error {
			p, found, err := s.one(ctx, byCharge.Eq(charge))
			if err != nil || !found {
				return err
			}
			_, err = s.payments.Update(ctx, p.ID, func(_ context.Context, p *Payment) error {
				if p.Status == Captured && p.ChargeKey == charge {
					p.Status, p.RefundKey = Refunded, key
				}
				return nil
			})
			return err
		})
	})
	if errors.Is(err, barrier.ErrKey) {
		return Payment{}, badKey()
	}
	if err != nil {
		return Payment{}, err
	}
	p, found, err := s.get(ctx, id)
	if err != nil || !found || p.ChargeKey != charge {
		return Payment{Meta: repository.Meta{ID: id}}, err
	}
	return p, nil
}

func badKey() error {
	return platform.Invalid("header.Idempotency-Key", "want the key of a saga's step, which ends with /do or /undo")
}

func (s *Service) get(ctx context.Context, id string) (p Payment, found bool, err error) {
	p, err = s.payments.Get(ctx, id)
	if errors.Is(err, repository.ErrNotFound) {
		return p, false, nil
	}
	return p, err == nil, err
}

func (s *Service) one(ctx context.Context, where repository.Filter[Payment]) (p Payment, found bool, err error) {
	page, err := s.payments.Find(ctx, repository.Query[Payment]{Where: where, Limit: 1})
	if err != nil || len(page.Items) == 0 {
		return p, false, err
	}
	return page.Items[0], true, nil
}
