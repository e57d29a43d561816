package outbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/sillar-go/sillar/internal/backoff"
	"github.com/sillar-go/sillar/internal/correlation"
	"github.com/sillar-go/sillar/internal/id"
	"github.com/sillar-go/sillar/messaging"
)

const scope = "github.com/sillar-go/sillar/messaging/outbox"

// RelayConfig tunes a Relay. The zero value is useful.
type RelayConfig struct {
	// Name tells outboxes apart in metrics and logs. Default "outbox".
	Name string
	// Batch is how many entries are claimed at a time. Default 200, at most 10,000: a statement has no room for more.
	Batch int
	// Lease is how long a claim lasts when its relay dies. Default 30s: longer delays what a dead relay held, shorter
	// than a slow broker's confirms has events published twice.
	Lease time.Duration
	// Poll is the floor of wake-ups. Default 1s.
	Poll time.Duration
	// Backoff is the pause after a failure, by attempts. Default messaging.Exponential(time.Second, time.Minute).
	Backoff messaging.Backoff
	// Unroutable says what becomes of events that no queue takes. Default UnroutableDiscard. The others are an
	// ErrUnsupported of messaging on brokers that declare not to notice (Features.Unroutable).
	Unroutable Unroutable
	// DrainTimeout bounds how long Run goes on with what it has claimed after its context ends. Default 10s; negative:
	// it gives back at once.
	DrainTimeout time.Duration
	// Logger gets failures (warn). Default slog.Default().
	Logger *slog.Logger
	// MeterProvider takes sillar.outbox.relayed, sillar.outbox.pending and sillar.outbox.lag. Default the global one.
	MeterProvider metric.MeterProvider
	// TracerProvider takes a producer span for each event, in the trace it was made in. Default the global one.
	TracerProvider trace.TracerProvider
	// Propagator finds the trace in an event's headers. Default: W3C trace context and the correlation id.
	Propagator propagation.TextMapPropagator
}

// Relay publishes what a store holds. Several may run at once, in one process or many.
type Relay struct {
	store   Store
	pub     messaging.Publisher
	cfg     RelayConfig
	owner   string
	running atomic.Bool
	relayed metric.Int64Counter
	meter   metric.Meter
	tracer  trace.Tracer

	mu         sync.Mutex
	unroutable map[string]bool // topics that have been logged
}

// maxBatch keeps a claim below the parameters that a statement can have: 32,766 on SQLite, 65,535 on PostgreSQL.
const maxBatch = 10_000

// NewRelay makes a relay between a store and a broker.
func NewRelay(store Store, publisher messaging.Publisher, cfg RelayConfig) (*Relay, error) {
	if store == nil || publisher == nil {
		return nil, errors.New("outbox: NewRelay wants a Store and a Publisher")
	}
	if f, ok := publisher.(messaging.Featured); ok && cfg.Unroutable != UnroutableDiscard && !f.Features().Unroutable {
		return nil, fmt.Errorf("%w: RelayConfig.Unroutable: it does not say that no queue takes an event",
			messaging.ErrUnsupported)
	}
	if cfg.Name == "" {
		cfg.Name = "outbox"
	}
	if cfg.Batch <= 0 {
		cfg.Batch = 200
	}
	cfg.Batch = min(cfg.Batch, maxBatch)
	if cfg.Lease <= 0 {
		cfg.Lease = 30 * time.Second
	}
	if cfg.Poll <= 0 {
		cfg.Poll = time.Second
	}
	if cfg.DrainTimeout == 0 {
		cfg.DrainTimeout = 10 * time.Second
	}
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	cfg.MeterProvider = cmp.Or(cfg.MeterProvider, otel.GetMeterProvider())
	cfg.TracerProvider = cmp.Or(cfg.TracerProvider, otel.GetTracerProvider())
	cfg.Propagator = cmp.Or(cfg.Propagator, correlation.DefaultPropagator())
	r := &Relay{store: store, pub: publisher, cfg: cfg, owner: id.New(), meter: cfg.MeterProvider.Meter(scope),
		tracer: cfg.TracerProvider.Tracer(scope), unroutable: map[string]bool{}}
	var err error
	r.relayed, err = r.meter.Int64Counter("sillar.outbox.relayed", metric.WithUnit("{message}"),
		metric.WithDescription("Events taken from the outbox, by outcome (published, failed, unroutable)."))
	return r, err
}

// Must returns v, or panics with err when it is not nil.
func Must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Run publishes until ctx ends; then it finishes what it has claimed and returns nil. It survives the loss of database
// and broker. One Run at a time.
func (r *Relay) Run(ctx context.Context) error {
	if !r.running.CompareAndSwap(false, true) {
		return errors.New("outbox: the relay runs already")
	}
	defer r.running.Store(false)
	unregister, err := r.gauges()
	if err != nil {
		return err
	}
	defer unregister()

	// Held events are retried beside the new ones, which never wait for them. A retry may have freed its key: it wakes
	// the loop of the new ones.
	freed := make(chan struct{}, 1)
	var wg sync.WaitGroup
	wg.Go(func() { r.loop(ctx, r.store.ClaimHeld, nil, nil, freed) })
	r.loop(ctx, r.store.Claim, r.store.Wake(ctx), freed, nil)
	wg.Wait()
	return nil
}

// claim is Store.Claim or Store.ClaimHeld.
type claim func(ctx context.Context, owner string, limit int, lease time.Duration) ([]Entry, error)

// loop publishes batches of what claim returns until ctx ends. It looks again after Poll, or when one of the two
// channels wakes it, and wakes what reads from progress when it published something.
func (r *Relay) loop(ctx context.Context, claim claim, wake, freed <-chan struct{}, progress chan<- struct{}) {
	for failures := 0; ctx.Err() == nil; {
		n, err := r.batch(ctx, claim)
		if n > 0 {
			select {
			case progress <- struct{}{}:
			default:
			}
		}
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			failures++
			pause := backoff.Exponential(100*time.Millisecond, 15*time.Second).Delay(failures)
			r.cfg.Logger.WarnContext(ctx, "outbox: the relay could not go on and will try again", "outbox", r.cfg.Name,
				"error", err, "next_try_in", pause)
			_ = backoff.Sleep(ctx, pause)
			continue
		case n >= r.cfg.Batch:
			failures = 0
			continue
		}
		failures = 0
		t := time.NewTimer(r.cfg.Poll)
		select {
		case <-ctx.Done():
		case <-t.C:
		case <-wake:
		case <-freed:
		}
		t.Stop()
	}
}

func (r *Relay) gauges() (unregister func(), err error) {
	pending, err1 := r.meter.Int64ObservableGauge("sillar.outbox.pending", metric.WithUnit("{message}"),
		metric.WithDescription("Events that wait in the outbox, up to 100,000 in SQL."))
	lag, err2 := r.meter.Float64ObservableGauge("sillar.outbox.lag", metric.WithUnit("s"),
		metric.WithDescription("Age of the oldest event that waits."))
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	name := metric.WithAttributes(attribute.String("outbox", r.cfg.Name))
	reg, err := r.meter.RegisterCallback(func(ctx context.Context, o metric.Observer) error {
		ctx, cancel := context.WithTimeout(ctx, storeTimeout)
		defer cancel()
		n, oldest, err := r.store.Pending(ctx)
		if err != nil {
			return err
		}
		o.ObserveInt64(pending, n, name)
		age := 0.0
		if n > 0 && !oldest.IsZero() {
			age = max(time.Since(oldest).Seconds(), 0)
		}
		o.ObserveFloat64(lag, age, name)
		return nil
	}, pending, lag)
	if err != nil {
		return nil, err
	}
	return func() { _ = reg.Unregister() }, nil
}

// storeTimeout bounds each call of the store: a frozen connection to the database must not stop the relay.
const storeTimeout = 10 * time.Second

// batch claims, publishes and deletes once.
func (r *Relay) batch(ctx context.Context, claim claim) (int, error) {
	begin := time.Now()
	cctx, stop := context.WithTimeout(ctx, storeTimeout)
	entries, err := claim(cctx, r.owner, r.cfg.Batch, r.cfg.Lease)
	stop()
	if err != nil {
		return 0, fmt.Errorf("outbox: claim events: %w", err)
	}
	if len(entries) == 0 {
		return 0, nil
	}
	// What is not confirmed in half the lease, or in DrainTimeout after the end of ctx, is given back: the other half of
	// the lease is for settling.
	pctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), begin.Add(r.cfg.Lease/2))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(max(r.cfg.DrainTimeout, 0), cancel) })()
	rest := entries
	for len(rest) > 0 {
		var round []Entry
		round, rest = split(rest)
		if pctx.Err() != nil {
			return len(entries), errors.Join(context.Cause(pctx), r.release(pctx, append(round, rest...)))
		}
		stuck, err := r.publish(pctx, round)
		if err != nil {
			return len(entries), errors.Join(err, r.release(pctx, append(stuck, rest...)))
		}
		if len(stuck) > 0 {
			var behind []Entry
			behind, rest = follow(stuck, rest)
			if err := r.release(pctx, behind); err != nil {
				return len(entries), err
			}
		}
	}
	return len(entries), nil
}

// split takes the first entry of each key, and all without a key: what may be under way at the same time.
func split(entries []Entry) (round, rest []Entry) {
	seen := map[string]bool{}
	for _, e := range entries {
		if e.Key != "" && seen[e.Key] {
			rest = append(rest, e)
			continue
		}
		seen[e.Key] = true
		round = append(round, e)
	}
	return round, rest
}

// follow separates the entries whose key is stuck.
func follow(stuck, entries []Entry) (behind, rest []Entry) {
	keys := map[string]bool{}
	for _, e := range stuck {
		keys[e.Key] = e.Key != ""
	}
	for _, e := range entries {
		if keys[e.Key] {
			behind = append(behind, e)
		} else {
			rest = append(rest, e)
		}
	}
	return behind, rest
}

// publish sends a round. It returns the entries that failed and are held back, or, with an error, those that are still
// on lease because no broker was met.
func (r *Relay) publish(ctx context.Context, round []Entry) (stuck []Entry, err error) {
	errs := r.send(ctx, round)
	outage := r.outage(ctx, errs)
	outageHold := Hold{Pause: min(r.cfg.Backoff.Delay(1), outagePause), StopsKey: true, Uncounted: true}
	var done, away []Entry
	held := map[Hold][]Entry{} // one statement for each Hold
	hold := func(e Entry, h Hold) { held[h] = append(held[h], e) }
	pauses := map[int]time.Duration{} // random: one for all events of as many attempts, or each would be a statement
	pause := func(e Entry) time.Duration {
		n := e.Attempts + 1
		if pauses[n] == 0 {
			pauses[n] = r.cfg.Backoff.Delay(n)
		}
		return pauses[n]
	}
	var why error
	for i, e := range round {
		err := errs[i]
		outcome := "published"
		switch {
		case err == nil:
			done = append(done, e)
		case errors.Is(err, messaging.ErrUnroutable):
			outcome = "unroutable"
			r.logUnroutable(ctx, e)
			if r.cfg.Unroutable == UnroutableDiscard {
				done = append(done, e)
				break
			}
			hold(e, Hold{Pause: pause(e), StopsKey: r.cfg.Unroutable == UnroutableHoldKey})
		case noBroker(err):
			outcome, why = "failed", err
			away = append(away, e)
		case outage:
			outcome = "failed"
			hold(e, outageHold)
		default:
			outcome = "failed"
			r.cfg.Logger.WarnContext(ctx, "outbox: an event could not be published and is held", "outbox", r.cfg.Name,
				"topic", e.Type, "message_id", e.ID, "key", e.Key, "attempts", e.Attempts+1, "error", err)
			hold(e, Hold{Pause: pause(e), StopsKey: true})
		}
		r.relayed.Add(ctx, 1, metric.WithAttributes(attribute.String("outbox", r.cfg.Name),
			attribute.String("outcome", outcome)))
	}
	stuck, err = r.hold(ctx, held)
	why = errors.Join(why, err)
	if len(done) > 0 {
		if err := r.settle(ctx, func(ctx context.Context) error { return r.store.Done(ctx, r.owner, done) }); err != nil {
			// They stay on lease and are published once more when it ends.
			return away, errors.Join(why, fmt.Errorf("outbox: delete what was published: %w", err))
		}
	}
	if why != nil {
		return away, why
	}
	return stuck, nil
}

// send publishes entries at once and returns the error of each.
func (r *Relay) send(ctx context.Context, round []Entry) []error {
	events := make([]messaging.Envelope, len(round))
	for i := range round {
		events[i] = round[i].Envelope
	}
	spans := r.startSpans(ctx, events)
	errs := make([]error, len(round))
	if err := r.pub.PublishBatch(ctx, events); err != nil {
		var b *messaging.BatchError
		if errors.As(err, &b) && len(b.Errors) == len(round) {
			copy(errs, b.Errors)
		} else {
			for i := range errs {
				errs[i] = err
			}
		}
	}
	endSpans(spans, errs)
	return errs
}

// hold holds entries, with one statement for each Hold, and returns those that stop their keys.
func (r *Relay) hold(ctx context.Context, held map[Hold][]Entry) (stuck []Entry, err error) {
	for h, entries := range held {
		if h.StopsKey {
			stuck = append(stuck, entries...)
		}
		if h.Uncounted {
			r.cfg.Logger.WarnContext(ctx, "outbox: the broker takes no event; they are held and tried again", "outbox",
				r.cfg.Name, "events", len(entries), "next_try_in", h.Pause)
		}
		err = errors.Join(err, r.settle(ctx, func(ctx context.Context) error {
			return r.store.Hold(ctx, r.owner, entries, h)
		}))
	}
	return stuck, err
}

func (r *Relay) release(ctx context.Context, entries []Entry) error {
	if len(entries) == 0 {
		return nil
	}
	return r.settle(ctx, func(ctx context.Context) error { return r.store.Release(ctx, r.owner, entries) })
}

// settle runs a statement that must not be cut short by the drain.
func (r *Relay) settle(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	return f(ctx)
}
