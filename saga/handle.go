package saga

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
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
// another state. Inside a transaction of the store's it joins:
// the saga begins when that commits. o need not run: any orchestrator on the same store with the same definition takes
// the saga.
func (d *Def[S]) Start(ctx context.Context, o *Orchestrator, id string, state S) (*Handle[S], error) {
	def := o.defs[Kind{d.d.name, d.d.version}]
	if def == nil {
		return nil, fmt.Errorf("%w: %s version %d", ErrUnknown, d.d.name, d.d.version)
	}
	if id == "" || len(id) > 200 || !utf8.ValidString(id) || strings.ContainsFunc(id, unicode.IsControl) {
		return nil, fmt.Errorf(
			"saga: start %s: the id %.200q must have 1 to 200 bytes of UTF-8 without control characters", d.d.name, id,
		)
	}
	raw, err := json.Marshal(state)
	if err != nil {
		return nil, fmt.Errorf("saga: start %s %s: encode the state: %w", d.d.name, id, err)
	}
	if !utf8.Valid(raw) {
		return nil, fmt.Errorf("saga: start %s %s: %w: the state is not valid UTF-8", d.d.name, id, ErrUnstorable)
	}
	sum := sha256.Sum256(raw)
	headers := propagation.MapCarrier{}
	o.cfg.Propagator.Inject(ctx, headers)
	headers[startHeader] = hex.EncodeToString(sum[:16])
	now := time.Now().UTC()
	r := Record{ID: id, Name: d.d.name, Version: d.d.version, Shape: def.shape, Status: Running, State: raw,
		Steps: def.freshSteps(), Headers: headers, WakeAt: now, CreatedAt: now, UpdatedAt: now}

	var own *identity
	places := 0
	if !o.store.InTx(ctx) {
		own, places = o.enter(1)
	}
	if places > 0 { // owned from its first write on, without a claim
		r.Owner, r.Fence = own.node, 1
		(&runner{o: o, def: def, rec: r}).intend()
	}
	stored, inserted, err := o.store.Insert(ctx, r)
	if err != nil || !inserted {
		if places > 0 {
			o.leave(own)
		}
		if err != nil {
			if places > 0 { // it may have been stored all the same, also where ctx has ended
				own.unsure.Store(true)
			}
			return nil, fmt.Errorf("saga: start %s %s: %w", d.d.name, id, err)
		}
		if stored.Name != d.d.name {
			return nil, fmt.Errorf("saga: start %s %s: the id belongs to a %s", d.d.name, id, stored.Name)
		}
		if with := stored.Headers[startHeader]; with != "" && with != headers[startHeader] {
			return &Handle[S]{o, id}, fmt.Errorf("%w: %s %s", ErrStarted, d.d.name, id)
		}
		return &Handle[S]{o, id}, nil
	}
	o.cfg.Logger.DebugContext(ctx, "saga: started", "saga", d.d.name, "saga_id", id)
	if places > 0 {
		o.markRunning(id)
		go o.run(own, Claimed{Record: stored})
	} else {
		o.store.AfterCommit(ctx, o.wake)
	}
	return &Handle[S]{o, id}, nil
}

// Handle returns the handle of a saga by its id; it is not checked.
func (d *Def[S]) Handle(o *Orchestrator, id string) *Handle[S] { return &Handle[S]{o, id} }

// waitPoll is how often Wait looks for what other processes do.
const waitPoll = 250 * time.Millisecond

// Wait waits until the saga has ended, and returns its state. The error is a *FailedError unless it completed, or
// ctx's. A stuck saga counts as ended.
func (h *Handle[S]) Wait(ctx context.Context) (S, error) {
	changed, ended, here, cancel := h.o.subscribe(h.id)
	defer cancel()
	if ended != nil {
		return h.end(*ended)
	}
	ticker := time.NewTicker(waitPoll)
	defer ticker.Stop()
	var none S
	look := !here // a saga that runs here reports its end by changed
	for {
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
		case r := <-changed:
			if r.Status.Ended() {
				return h.end(r)
			}
			look = false
		case <-ticker.C:
			look = true
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

// Signal gives a payload to the Await of that name, now or when the saga comes to it. A second signal of one name
// changes nothing. The error is ErrTooLate when the saga compensates already, such as after the timeout of the Await,
// ErrFinished when it has ended, or ErrNotFound. A payload of another type is an error, and is not kept. It joins the
// transaction in ctx.
func (d *Def[S]) Signal(ctx context.Context, o *Orchestrator, id, name string, payload any) error {
	i := slices.IndexFunc(d.d.nodes, func(n *node) bool { return n.kind == kindAwait && n.name == name })
	if i < 0 {
		return fmt.Errorf("saga: signal %s of %s: no step awaits it", name, d.d.name)
	}
	raw, err := json.Marshal(payload)
	if err != nil {
		return fmt.Errorf("saga: signal %s of %s: encode the payload: %w", name, id, err)
	}
	if err := d.d.nodes[i].reads(raw); err != nil {
		return fmt.Errorf("saga: signal %s of %s: the payload is not what is awaited: %w", name, id, err)
	}
	_, err = o.store.Signal(ctx, id, name, raw, func(r Record) error {
		if r.Name != d.d.name {
			return fmt.Errorf("%w: %s is a %s", ErrNotFound, id, r.Name)
		}
		if r.Status == Compensating || r.Status == Stuck && !r.forwardStuck(&d.d) {
			return ErrTooLate
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("saga: signal %s of %s: %w", name, id, err)
	}
	o.wake()
	return nil
}
