package saga

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"go.opentelemetry.io/otel/propagation"
)

// Handle is a started saga.
type Handle[S any] struct {
	o  *Orchestrator
	id string
}

// ID returns the saga's id.
func (h *Handle[S]) ID() string { return h.id }

// startHeader is the header of a saga that holds a hash of the state that it was started with.
const startHeader = "sillar-saga-start"

// Start starts a saga, or returns the handle of the one with the same id; with ErrStarted where that was started with
// another state. Inside a transaction of the store's it joins: the saga begins when that commits. o need not run: any
// orchestrator on the same store with the same definition takes the saga.
func (d *Def[S]) Start(
	ctx context.Context, o *Orchestrator, id string, state S, opts ...StartOption,
) (*Handle[S], error) {
	h, _, err := d.start(ctx, o, id, state, nil, opts)
	return h, err
}

// StartOption is an option of Start.
type StartOption func(*startOptions)

type startOptions struct{ attributes map[string]string }

// WithAttributes gives a saga search attributes, such as the customer's id or a correlation key, by which List and
// Count find it. They do not change. At most 20, of names and values of 1 to 200 bytes. Each is a row of an index.
func WithAttributes(attributes map[string]string) StartOption {
	return func(o *startOptions) { o.attributes = attributes }
}

func (o startOptions) headers(to map[string]string) error {
	if len(o.attributes) > 20 {
		return fmt.Errorf("%d attributes: want at most 20", len(o.attributes))
	}
	for name, value := range o.attributes {
		if err := errors.Join(checkID(name), checkID(value)); err != nil {
			return fmt.Errorf("attribute %.100q: %w", name, err)
		}
		to[attributeHeader+name] = value
	}
	return nil
}

// SignalWithStart starts a saga that has the signal already, or gives the signal to the saga that there is, whatever
// state that was started with: for an event that may come before the saga that waits for it.
func (d *Def[S]) SignalWithStart(
	ctx context.Context, o *Orchestrator, id string, state S, name string, payload any, opts ...StartOption,
) (*Handle[S], error) {
	raw, err := d.signalPayload(name, payload, false)
	if err != nil {
		return nil, err
	}
	h, started, err := d.start(ctx, o, id, state, map[string][]byte{name: raw}, opts)
	if err != nil && !errors.Is(err, ErrStarted) || started {
		return h, err
	}
	return h, d.Signal(ctx, o, id, name, payload)
}

func checkID(id string) error {
	if id == "" || len(id) > 200 || !utf8.ValidString(id) || strings.ContainsFunc(id, unicode.IsControl) {
		return fmt.Errorf("%.200q must have 1 to 200 bytes of UTF-8 without control characters", id)
	}
	return nil
}

// start inserts the saga and runs it where there is a slot. started is false where the id was taken.
func (d *Def[S]) start(
	ctx context.Context, o *Orchestrator, id string, state S, signals map[string][]byte, opts []StartOption,
) (h *Handle[S], started bool, err error) {
	def := o.defs[Kind{d.d.name, d.d.version}]
	if def == nil {
		return nil, false, fmt.Errorf("%w: %s version %d", ErrUnknown, d.d.name, d.d.version)
	}
	if err := checkID(id); err != nil {
		return nil, false, fmt.Errorf("saga: start %s: the id %w", d.d.name, err)
	}
	raw, err := json.Marshal(state)
	if err != nil {
		return nil, false, fmt.Errorf("saga: start %s %s: encode the state: %w", d.d.name, id, err)
	}
	if !utf8.Valid(raw) {
		return nil, false, fmt.Errorf("saga: start %s %s: %w: the state is not valid UTF-8", d.d.name, id, ErrUnstorable)
	}
	sum := sha256.Sum256(raw)
	headers := propagation.MapCarrier{}
	o.cfg.Propagator.Inject(ctx, headers)
	headers[startHeader] = hex.EncodeToString(sum[:16])
	var with startOptions
	for _, opt := range opts {
		opt(&with)
	}
	if err := with.headers(headers); err != nil {
		return nil, false, fmt.Errorf("saga: start %s %s: %w", d.d.name, id, err)
	}
	now := time.Now().UTC()
	r := Record{ID: id, Name: d.d.name, Version: d.d.version, Shape: def.shape, Status: Running, State: raw,
		Steps: def.freshSteps(), Headers: headers, WakeAt: now, CreatedAt: now, UpdatedAt: now,
		Signals: signals, SignalSeq: int64(len(signals))}

	var own *slot
	if !o.store.InTx(ctx) {
		own = o.enterOne(def)
	}
	if own != nil { // owned from its first write on, without a claim
		r.Owner, r.Fence = own.self.node, 1
		(&runner{o: o, def: def, rec: r}).intend()
	}
	stored, inserted, err := o.store.Insert(ctx, r)
	switch {
	case err != nil:
		if own != nil { // it may have been stored, also where ctx has ended
			own.self.unsure.Store(true)
			o.leave(*own)
		}
		return nil, false, fmt.Errorf("saga: start %s %s: %w", d.d.name, id, err)
	case !inserted:
		if own != nil {
			o.leave(*own)
		}
		if stored.Name != d.d.name {
			return nil, false, fmt.Errorf("saga: start %s %s: the id belongs to a %s", d.d.name, id, stored.Name)
		}
		h = &Handle[S]{o, id}
		if with := stored.Headers[startHeader]; with != "" && with != headers[startHeader] {
			return h, false, fmt.Errorf("%w: %s %s", ErrStarted, d.d.name, id)
		}
		return h, false, nil
	}
	o.cfg.Logger.DebugContext(ctx, "saga: started", "saga", d.d.name, "saga_id", id)
	if own != nil {
		o.markRunning(id)
		go o.run(*own, Claimed{Record: stored})
	} else {
		o.store.AfterCommit(ctx, o.wake)
	}
	return &Handle[S]{o, id}, true, nil
}

// Handle returns the handle of a saga by its id; it is not checked.
func (d *Def[S]) Handle(o *Orchestrator, id string) *Handle[S] { return &Handle[S]{o, id} }

// Wait waits until the saga has ended, and returns its state. The error is a *FailedError unless it completed, or
// ctx's. A stuck saga counts as ended. The end of a saga in another process is found by polling: one statement every
// 250 ms for all callers of this process. Where the store notifies (a Listener: sagasql on PostgreSQL, sagamongo on a
// replica set), Wait returns about 10 ms after the end (measured on PostgreSQL); a lost notification delays it by up to
// a second.
func (h *Handle[S]) Wait(ctx context.Context) (S, error) {
	ends, ended, here, cancel := h.o.subscribe(h.id)
	defer cancel()
	if ended != nil {
		return h.end(*ended)
	}
	ticker := time.NewTicker(waitCheck)
	defer ticker.Stop()
	var none S
	for look := !here; ; look = true { // a saga that runs here reports its end by ends
		if look {
			r, err := h.o.store.Get(ctx, h.id)
			if err != nil {
				return none, fmt.Errorf("saga: wait for %s: %w", h.id, err)
			}
			if r.Status.Ended() {
				return h.end(r)
			}
		}
		select {
		case <-ctx.Done():
			return none, context.Cause(ctx)
		case r := <-ends:
			return h.end(r)
		case <-ticker.C: // it may have been deleted
		}
	}
}

// end is what Wait returns for a saga that has ended.
func (h *Handle[S]) end(r Record) (state S, err error) {
	if err := json.Unmarshal(r.State, &state); err != nil {
		return state, fmt.Errorf("saga: decode the state of %s: %w", h.id, err)
	}
	return state, r.Err()
}

// Err returns nil for a saga that has completed or is at work, else a *FailedError.
func (r Record) Err() error {
	if r.Status != Compensated && r.Status != Stuck {
		return nil
	}
	return &FailedError{
		ID:            r.ID,
		Name:          r.Name,
		Status:        r.Status,
		Step:          r.FailedStep,
		Cause:         r.Cause,
		Compensations: r.failures(),
	}
}
