package payments

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/sillar-go/sillar/repository/sqldb"
)

// Modes of the simulated processor.
const (
	ModeOK   = "ok"
	ModeSlow = "slow"
	ModeDown = "down"
)

// methods are the payment methods that the simulated processor knows, and why it declines them.
var methods = map[string]string{
	"pm_card_visa":         "",
	"pm_card_slow":         "",
	"pm_card_flaky":        "",
	"pm_card_declined":     "your card was declined",
	"pm_card_insufficient": "insufficient funds",
}

// simulator is a Processor that moves no money. It simulates an external system: its ledger has its own tables and
// its own transactions, so its answers stay when the caller's transaction rolls back.
type simulator struct {
	db   *sqldb.DB
	mode atomic.Value // string
}

// ledger creates the tables of the simulator.
const ledger = `CREATE TABLE IF NOT EXISTS processor_charges (
	charge_key TEXT PRIMARY KEY, order_id TEXT NOT NULL, amount_cents BIGINT NOT NULL, method TEXT NOT NULL,
	status TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS processor_attempts (order_id TEXT PRIMARY KEY, attempts BIGINT NOT NULL);
`

func newSimulator(db *sqldb.DB) *simulator {
	s := &simulator{db: db}
	s.mode.Store(ModeOK)
	return s
}

// Mode returns the mode of the processor.
func (s *simulator) Mode() string { return s.mode.Load().(string) }

// SetMode sets the mode of the processor.
func (s *simulator) SetMode(mode string) { s.mode.Store(mode) }

// arrive applies the mode to a request.
func (s *simulator) arrive(ctx context.Context, takes time.Duration) error {
	switch s.Mode() {
	case ModeDown:
		return ErrProcessor
	case ModeSlow:
		takes += 3 * time.Second
	}
	if takes == 0 {
		return nil
	}
	timer := time.NewTimer(takes)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrProcessor, context.Cause(ctx))
	}
}

// Charge implements Processor.
func (s *simulator) Charge(ctx context.Context, c Charge) error {
	reason, known := methods[c.Method]
	if !known {
		return ErrMethod
	}
	var takes time.Duration
	if c.Method == "pm_card_slow" {
		takes = 2 * time.Second
	}
	if err := s.arrive(ctx, takes); err != nil {
		return err
	}
	q := s.db.Querier(s.db.WithoutTx(ctx))
	if c.Method == "pm_card_flaky" {
		var n int64
		if err := q.QueryRow(ctx, "INSERT INTO processor_attempts (order_id, attempts) VALUES ($1, 1) "+
			"ON CONFLICT (order_id) DO UPDATE SET attempts = processor_attempts.attempts + 1 RETURNING attempts",
			c.OrderID).Scan(&n); err != nil {
			return fmt.Errorf("%w: %w", ErrProcessor, err)
		}
		if n <= 2 {
			return ErrProcessor
		}
	}
	status := "approved"
	if reason != "" {
		status = "declined"
	}
	if _, err := q.Exec(ctx,
		"INSERT INTO processor_charges (charge_key, order_id, amount_cents, method, status) VALUES ($1, $2, $3, $4, $5) "+
			"ON CONFLICT DO NOTHING",
		c.Key, c.OrderID, c.AmountCents, c.Method, status); err != nil {
		return fmt.Errorf("%w: %w", ErrProcessor, err)
	}
	was := Charge{Key: c.Key, UserID: c.UserID}
	if err := q.QueryRow(ctx, "SELECT order_id, amount_cents, method, status FROM processor_charges WHERE charge_key = $1",
		c.Key).
		Scan(&was.OrderID, &was.AmountCents, &was.Method, &status); err != nil {
		return fmt.Errorf("%w: %w", ErrProcessor, err)
	}
	switch {
	case status == "voided":
		return ErrVoided
	case was != c:
		return ErrKeyReused
	case status == "declined":
		return &DeclinedError{reason}
	}
	return nil
}

// Void implements Processor.
func (s *simulator) Void(ctx context.Context, key string) error {
	if err := s.arrive(ctx, 0); err != nil {
		return err
	}
	_, err := s.db.Querier(s.db.WithoutTx(ctx)).Exec(ctx,
		"INSERT INTO processor_charges (charge_key, order_id, amount_cents, method, status) "+
			"VALUES ($1, '', 0, '', 'voided') "+
			"ON CONFLICT (charge_key) DO UPDATE SET status = 'voided' WHERE processor_charges.status = 'approved'", key)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrProcessor, err)
	}
	return nil
}

// Held returns the amount charged and not voided. It equals the sum of the captured payments.
func (s *simulator) Held(ctx context.Context) (cents int64, err error) {
	err = s.db.Querier(ctx).QueryRow(ctx,
		"SELECT CAST(coalesce(sum(amount_cents), 0) AS BIGINT) FROM processor_charges WHERE status = 'approved'").Scan(&cents)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrProcessor, err)
	}
	return cents, nil
}
