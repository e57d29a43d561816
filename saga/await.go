package saga

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// AwaitDef waits for signals. It may stand before or after the pivot.
type AwaitDef[S any] struct{ part[S] }

// Await waits for a signal of the step's name, and then runs on with its payload. A signal that comes before the wait
// is kept; one that comes twice counts once.
func Await[P, S any](name string, on func(ctx context.Context, c *Call, state *S, payload P) error) *AwaitDef[S] {
	var h Handler[S]
	if on != nil {
		h = func(ctx context.Context, c *Call, state *S) error {
			p, err := decodePayload[P](name, c.payload)
			if err != nil {
				return err
			}
			return on(ctx, c, state, p)
		}
	}
	return newAwait[P](name, h)
}

// AwaitEach waits for signals of the step's name, which SignalEach sends, and runs on with the payload of each in the
// order of their arrival, until it returns done. What it changes is stored after each signal. Call.Key differs from
// signal to signal. It cannot be compensated: let it collect, and let a step act upon what it has collected.
func AwaitEach[P, S any](
	name string, on func(ctx context.Context, c *Call, state *S, payload P) (done bool, err error),
) *AwaitDef[S] {
	var h Handler[S]
	if on != nil {
		h = func(ctx context.Context, c *Call, state *S) error {
			p, err := decodePayload[P](name, c.payload)
			if err != nil {
				return err
			}
			c.done, err = on(ctx, c, state, p)
			return err
		}
	}
	d := newAwait[P](name, h)
	d.n.each = true
	return d
}

func newAwait[P, S any](name string, h Handler[S]) *AwaitDef[S] {
	n := newNode(name, kindAwait, h, 3)
	n.reads = func(payload []byte) error { return json.Unmarshal(payload, new(P)) }
	return &AwaitDef[S]{part[S]{n}}
}

func decodePayload[P any](name string, raw []byte) (p P, err error) {
	if err := json.Unmarshal(raw, &p); err != nil {
		return p, Reject(fmt.Errorf("saga: signal %s does not decode: %w", name, err))
	}
	return p, nil
}

// Timeout bounds the wait; then the saga compensates, or goes on with OnTimeout. Default: no bound. After the pivot,
// where nothing is compensated, it needs OnTimeout.
func (d *AwaitDef[S]) Timeout(t time.Duration) *AwaitDef[S] { d.n.wait = t; return d }

// OnTimeout runs h when Timeout has passed, and the saga goes on after it in place of being compensated. A signal that
// comes later is ErrTooLate.
func (d *AwaitDef[S]) OnTimeout(h Handler[S]) *AwaitDef[S] {
	if h != nil {
		d.n.onTimeout = erase(h)
	}
	return d
}

// Retry bounds the attempts of the handler. Default 3, from 200 ms on; after the pivot, where the saga is stuck then,
// 1,000 with pauses that grow to 10 minutes.
func (d *AwaitDef[S]) Retry(attempts int, pause Backoff) *AwaitDef[S] {
	d.n.attempts, d.n.pause, d.n.budgetSet = attempts, pause, true
	return d
}

// HandlerTimeout bounds an attempt of the handler. Default 10 s.
func (d *AwaitDef[S]) HandlerTimeout(t time.Duration) *AwaitDef[S] { d.n.timeout = t; return d }

// Compensate says how to undo what the handler did. It has the default budget of a step's compensation.
func (d *AwaitDef[S]) Compensate(undo Handler[S]) *AwaitDef[S] {
	if undo != nil {
		d.n.undo = erase(undo)
	}
	return d
}

// SleepDef pauses the saga. It may stand before or after the pivot.
type SleepDef[S any] struct{ part[S] }

// Sleep pauses the saga for d. A sleeping saga takes no slot, and survives restarts; Cancel and Deadline end its sleep.
func Sleep[S any](name string, d time.Duration) *SleepDef[S] {
	return SleepUntil(name, func(S) time.Time { return time.Now().Add(d) })
}

// SleepUntil pauses the saga until the time that the state gives, which is computed once. A time that has passed is no
// pause. A panic of until fails the step.
func SleepUntil[S any](name string, until func(state S) time.Time) *SleepDef[S] {
	n := newNode[S](name, kindSleep, nil, 1)
	if until == nil {
		n.err = fmt.Errorf("%w: sleep %q has no time", ErrDefinition, name)
		return &SleepDef[S]{part[S]{n}}
	}
	n.until = func(raw []byte) (at time.Time, err error) {
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("%w: %v", ErrPanic, p)
			}
		}()
		var s S
		if err := json.Unmarshal(raw, &s); err != nil {
			return at, fmt.Errorf("saga: decode the state: %w", err)
		}
		return until(s).UTC(), nil
	}
	return &SleepDef[S]{part[S]{n}}
}

// sleep parks until the time of a sleep, which it stores first.
func (r *runner) sleep(n *node, st *StepState) result {
	if st.Deadline.IsZero() {
		at, err := n.until(r.rec.State)
		if err != nil {
			return result{end: endRejected, err: err}
		}
		st.Deadline = at
	}
	if time.Now().Before(st.Deadline) {
		return result{end: endPark, delay: time.Until(st.Deadline)}
	}
	return result{end: endDone, state: r.rec.State}
}

// await runs the handler of an await whose signal, or whose timeout, is here. It reports false when the saga has to
// wait, and stands at the await still.
func (r *runner) await(ctx context.Context, stop stopSignal, n *node, st *StepState) (res result, here bool) {
	if st.TimedOut {
		return r.attempts(ctx, stop, n, st, attemptOf{do: n.onTimeout}), true
	}
	if !n.each {
		payload, here := r.rec.Signals[n.name]
		if !here {
			return res, false
		}
		return r.attempts(ctx, stop, n, st, attemptOf{do: n.do, payload: payload}), true
	}
	next, here := r.nextSignal(n.name, st.Seen)
	if !here {
		return res, false
	}
	res = r.attempts(ctx, stop, n, st, attemptOf{do: n.do, payload: next.Payload, signal: next.Seq})
	if res.end == endDone {
		st.Seen = next.Seq
	}
	return res, true
}

// signalled reports whether there is something for an await to take.
func (r *runner) signalled(n *node, st *StepState) bool {
	if n.each {
		_, here := r.nextSignal(n.name, st.Seen)
		return here
	}
	_, here := r.rec.Signals[n.name]
	return here
}

// wait parks at an await whose signal is not here. After its timeout it turns to OnTimeout, or to compensation; save
// refuses that with ErrSignalled when the signal came meanwhile, so exactly one of the two wins.
func (r *runner) wait(ctx context.Context, n *node, st *StepState) error {
	switch {
	case st.Deadline.IsZero():
		return r.parkUntil(ctx, time.Now().Add(365*24*time.Hour))
	case time.Now().Before(st.Deadline):
		return r.parkUntil(ctx, st.Deadline)
	}
	return r.unlessSignalled(ctx, n, func(st *StepState) {
		if n.onTimeout != nil {
			st.TimedOut = true
			return
		}
		st.Status, st.Error = StepFailed, ErrAwaitTimeout.Error()
		r.startCompensation(n.name, ErrAwaitTimeout.Error())
	})
}

// unlessSignalled stores a change of the saga, which stands at an await, unless its signal comes first.
func (r *runner) unlessSignalled(ctx context.Context, n *node, change func(st *StepState)) error {
	before, cursor := r.rec.Clone(), r.rec.Cursor
	change(&r.rec.Steps[cursor])
	err := r.saveUnless(ctx, func() bool { return r.signalled(n, &before.Steps[cursor]) })
	if errors.Is(err, ErrSignalled) {
		before.Signals, before.SignalSeq = r.rec.Signals, r.rec.SignalSeq
		r.rec = before
		return nil
	}
	return err
}

// keyedSignal is how a signal of an AwaitEach is stored, under the name of the step, a slash and the key.
type keyedSignal struct {
	Seq     int64           `json:"seq"`
	Payload json.RawMessage `json:"payload"`
}

// nextSignal returns the first signal of an AwaitEach that came after the one numbered seen.
func (r *runner) nextSignal(name string, seen int64) (next keyedSignal, here bool) {
	for stored, raw := range r.rec.Signals {
		if !strings.HasPrefix(stored, name+"/") {
			continue
		}
		var s keyedSignal
		if json.Unmarshal(raw, &s) == nil && s.Seq > seen && (!here || s.Seq < next.Seq) {
			next, here = s, true
		}
	}
	return next, here
}

// MaxSignals is how many signals a saga keeps, those that an AwaitEach has handled included.
const MaxSignals = 1000

// Signal gives a payload to the Await of that name, now or when the saga comes to it. A second signal of one name
// changes nothing. The error is ErrTooLate when the signal can have no effect any more, because the saga compensates
// or has gone on without it, ErrFinished when the saga has ended, or ErrNotFound. A payload of another type is an
// error, and is not kept. It joins the transaction in ctx.
func (d *Def[S]) Signal(ctx context.Context, o *Orchestrator, id, name string, payload any) error {
	raw, err := d.signalPayload(name, payload, false)
	if err != nil {
		return err
	}
	return d.signal(ctx, o, id, name, name, func(Record) ([]byte, error) { return raw, nil })
}

// SignalEach gives a payload to the AwaitEach of that name. Signals of one key, such as the id of the event that caused
// them, count once. The errors are those of Signal, and ErrSignals when the saga keeps MaxSignals already.
func (d *Def[S]) SignalEach(ctx context.Context, o *Orchestrator, id, name, key string, payload any) error {
	raw, err := d.signalPayload(name, payload, true)
	if err != nil {
		return err
	}
	if err := checkID(key); err != nil {
		return fmt.Errorf("saga: signal %s of %s: key: %w", name, id, err)
	}
	return d.signal(ctx, o, id, name, name+"/"+key, func(r Record) ([]byte, error) {
		if len(r.Signals) >= MaxSignals {
			return nil, ErrSignals
		}
		return json.Marshal(keyedSignal{Seq: r.SignalSeq + 1, Payload: raw})
	})
}

// signalPayload encodes a payload that an await of that name takes.
func (d *Def[S]) signalPayload(name string, payload any, each bool) ([]byte, error) {
	n := d.awaiting(name)
	switch {
	case n == nil:
		return nil, fmt.Errorf("saga: signal %s of %s: no step awaits it", name, d.d.name)
	case each && !n.each:
		return nil, fmt.Errorf("saga: signal %s of %s: the step takes one signal: use Signal", name, d.d.name)
	case !each && n.each:
		return nil, fmt.Errorf("saga: signal %s of %s: the step takes several signals: use SignalEach", name, d.d.name)
	}
	raw, err := json.Marshal(payload)
	if err != nil {
		return nil, fmt.Errorf("saga: signal %s of %s: encode the payload: %w", name, d.d.name, err)
	}
	if err := n.reads(raw); err != nil {
		return nil, fmt.Errorf("saga: signal %s of %s: the payload is not what is awaited: %w", name, d.d.name, err)
	}
	return raw, nil
}

func (d *Def[S]) awaiting(name string) *node {
	i := slices.IndexFunc(d.d.nodes, func(n *node) bool { return n.kind == kindAwait && n.name == name })
	if i < 0 {
		return nil
	}
	return d.d.nodes[i]
}

func (d *Def[S]) signal(
	ctx context.Context, o *Orchestrator, id, step, stored string, payload func(Record) ([]byte, error),
) error {
	_, err := o.store.Signal(ctx, id, stored, func(r Record) ([]byte, error) {
		if r.Name != d.d.name {
			return nil, fmt.Errorf("%w: %s is a %s", ErrNotFound, id, r.Name)
		}
		if r.Status == Compensating || r.Status == Stuck && !r.forwardStuck(&d.d) {
			return nil, ErrTooLate
		}
		for _, st := range r.Steps { // the saga has gone on without the signal
			if st.Name == step && (st.TimedOut || st.Status == StepCompleted) {
				return nil, ErrTooLate
			}
		}
		return payload(r)
	})
	if err != nil {
		return fmt.Errorf("saga: signal %s of %s: %w", step, id, err)
	}
	o.wake()
	return nil
}

// signalSuffix tells the attempts for the signals of an AwaitEach apart.
func signalSuffix(seq int64) string {
	if seq == 0 {
		return ""
	}
	return "#" + strconv.FormatInt(seq, 10)
}
