// Package eventstore keeps what happened: streams of events, the aggregates that are folded from them, and the
// projections that follow them.
//
//	orders, err := eventstore.NewAggregate(store, eventstore.Decider[Order, OrderEvent]{Evolve: Order.evolve},
//		eventstore.Types[OrderEvent]{
//			eventstore.Type[OrderCreated]("order_created", 1),
//			eventstore.Type[OrderPaid]("order_paid", 1),
//		}, eventstore.AggregateConfig{Category: "order"})
//
//	o, err := orders.Handle(ctx, id, func(ctx context.Context, o Order) ([]OrderEvent, error) {
//		if o.Status != Pending {
//			return nil, ErrNotPending
//		}
//		return []OrderEvent{OrderPaid{PaymentID: p}}, nil
//	})
//
// # Guarantees
//
//   - An append is whole or nothing, and only on the version that the writer has seen: else a
//     *repository.ConflictError. When several writers append at one version, one wins.
//   - Events of a stream are ordered by version, never by time.
//   - A reader that follows the store sees every event once, and each stream in order, also when a transaction that
//     began earlier commits later.
//   - Correlation id and trace context are kept with each event, through OpenTelemetry's propagation API.
//   - An event of an unknown type is an error, never skipped. Older schema versions are lifted by upcasters.
//   - The id of an event is in a store once, so an append of unknown outcome can be repeated.
//   - A projection's read model and checkpoint move in one transaction, by compare-and-set. A rebuild takes its place
//     beside appends, without readers seeing it go back: see Projector.Replace.
//
// # What it does not do
//
// It gives no global order by time. It has no archive: copy what Load yields to where it is to be kept, and Delete the
// stream at the version that was copied. A stream is deleted as a whole; Redact erases what its events say. A
// projection on a database without transactions applies events at least once. What is promised on which database is in
// docs/ordering-and-isolation.md.
//
// The stores are sqlevents (PostgreSQL, SQLite), mongoevents (MongoDB) and memevents (tests).
package eventstore

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"go.opentelemetry.io/otel/propagation"

	"github.com/sillar-go/sillar/internal/correlation"
	"github.com/sillar-go/sillar/repository"
)

// Expected versions of Append that are no number of events.
const (
	// AnyVersion appends whatever the version of the stream is.
	AnyVersion int64 = -1
	// NoStream appends only where there is no event yet.
	NoStream int64 = 0
)

// Errors of this package, to be compared with errors.Is. A conflict is a *repository.ConflictError, whose ID is the
// stream.
var (
	// ErrCursor says that a cursor is none of this store's.
	ErrCursor = errors.New("eventstore: not a cursor of this store")
	// ErrType says that an event's type or schema version is unknown.
	ErrType = errors.New("eventstore: unknown event type")
	// ErrAppend says that an append makes no sense: no stream, no type, an id twice, names or data that are no UTF-8.
	ErrAppend = errors.New("eventstore: malformed append")
	// ErrDeleted says that the stream was deleted: nothing is appended to it any more.
	ErrDeleted = errors.New("eventstore: the stream was deleted")
	// ErrCheckpoint says that another projector moved the checkpoint.
	ErrCheckpoint = errors.New("eventstore: the checkpoint was moved by another")
)

// Event is an event to be appended.
type Event struct {
	// ID identifies it in the whole store. Append sets a UUIDv7 where it is empty. One of the caller's own makes an
	// append safe to repeat when its outcome is unknown: it is stored once.
	ID string
	// Type names what happened, such as "order_paid". Required.
	Type string
	// Schema is the version of Data's form. 0 means 1.
	Schema int
	// Data is the content, as JSON. Empty means null.
	Data json.RawMessage
	// Metadata is what is known besides. Append adds correlation id and trace context.
	Metadata map[string]string
}

// Recorded is an event that has been appended.
type Recorded struct {
	Event
	// Stream is where it is.
	Stream string
	// Version is its place in the stream, from 1.
	Version int64
	// Position grows with every event of the store; it is no order to read by.
	Position int64
	// Time is when it was appended, in UTC.
	Time time.Time
}

// Snapshot is a state at a version, so that the events before need not be read.
type Snapshot struct {
	Stream string
	// Version is that of the last event in State.
	Version int64
	// Schema is the version of State's form: one of another schema is not found.
	Schema int
	State  json.RawMessage
}

// Store is the port. Package eventstoretest checks that an adapter keeps the promises.
type Store interface {
	// Append appends events if the stream has the expected version, AnyVersion or NoStream, and returns them as
	// recorded. An append with IDs of the caller's own that is repeated, with the same expected version or AnyVersion,
	// returns what it recorded the first time; else an ID that the store holds already is a *repository.UniqueError,
	// and so is, inside a transaction, one that is repeated with AnyVersion. It joins the transaction that ctx carries.
	Append(ctx context.Context, stream string, expected int64, events ...Event) ([]Recorded, error)
	// LoadFrom returns the events of a stream after a version, in order; 0 begins with the first. It yields an error
	// at most once, last. A stream that does not exist is empty.
	LoadFrom(ctx context.Context, stream string, after int64) iter.Seq2[Recorded, error]
	// Read returns up to limit events after a cursor, "" being the beginning, and the cursor after the last of them.
	// Events of one stream come in order, and none is ever missed; events of several streams mix.
	Read(ctx context.Context, cursor string, limit int) (events []Recorded, next string, err error)
	// ReadFiltered is Read of what a filter selects. It looks at so many events that its time is bounded: where it finds
	// none it returns a later cursor, from which to read on, and the same cursor at the end.
	ReadFiltered(ctx context.Context, f Filter, cursor string, limit int) (events []Recorded, next string, err error)
	// Wait returns when there may be events that were not there when Wait was called, or when ctx ends. It may return
	// early, and returns after a second at the latest.
	Wait(ctx context.Context)
	// Lag returns how many events follow a cursor, as far as they can be read already, at least up to 100,000.
	Lag(ctx context.Context, cursor string) (int64, error)

	// Redact erases what the events of a stream say: their data becomes null, their metadata empty, and the snapshots
	// of the stream are deleted. That they happened stays, with id, type, version and time, so that no reader is
	// confused; what folds or projects them has to bear null. It is for the erasure of a person's data, and cannot be
	// undone. The outbox and read models keep what they have. It joins the transaction that ctx carries.
	Redact(ctx context.Context, stream string) error

	// Delete removes all events and snapshots of a stream that has the expected version, or AnyVersion, and appends one of
	// the type Deleted, which says so to readers. Later appends are ErrDeleted, so the name is not used again. Positions
	// of other events stay; readers that have not come to the events yet never see them, and Lag may count them until
	// then. The name of the stream stays, in MongoDB also ids, times and the number of its events. Deleting what is
	// deleted, or was never there, does nothing. OnAppend of the stores is not called. It joins the transaction that ctx
	// carries; on MongoDB it is refused in one.
	Delete(ctx context.Context, stream string, expected int64) error

	// SaveSnapshot keeps the latest snapshot of a stream and schema; an older one changes nothing.
	SaveSnapshot(ctx context.Context, s Snapshot) error
	// LoadSnapshot returns it, or false.
	LoadSnapshot(ctx context.Context, stream string, schema int) (Snapshot, bool, error)

	// Checkpoint returns a projection's cursor, "" at first. It joins the transaction that ctx carries.
	Checkpoint(ctx context.Context, projection string) (string, error)
	// MoveCheckpoint moves it from one cursor to another, or returns ErrCheckpoint when it is elsewhere. It joins the
	// transaction that ctx carries, and then no other caller moves it before that ends, also where from and to are the
	// same.
	MoveCheckpoint(ctx context.Context, projection, from, to string) error
}

// Load returns all events of a stream.
func Load(ctx context.Context, s Store, stream string) iter.Seq2[Recorded, error] {
	return s.LoadFrom(ctx, stream, 0)
}

// Subscribe follows the store from a cursor on, until ctx ends or an error comes, which is yielded last. It yields each
// event with the cursor after it.
func Subscribe(ctx context.Context, s Store, cursor string) iter.Seq2[Delivered, error] {
	return SubscribeFiltered(ctx, s, Filter{}, cursor)
}

// SubscribeFiltered is Subscribe to what a filter selects.
func SubscribeFiltered(ctx context.Context, s Store, f Filter, cursor string) iter.Seq2[Delivered, error] {
	return func(yield func(Delivered, error) bool) {
		cursor := cursor // it may be ranged over again
		for ctx.Err() == nil {
			events, next, err := s.ReadFiltered(ctx, f, cursor, 500)
			if err != nil {
				if ctx.Err() == nil {
					yield(Delivered{}, err)
				}
				return
			}
			for i, e := range events {
				d := Delivered{Recorded: e}
				if i == len(events)-1 {
					d.Cursor = next
				}
				if !yield(d, nil) {
					return
				}
			}
			if next == cursor {
				s.Wait(ctx)
			}
			cursor = next
		}
	}
}

// Delivered is an event that Subscribe yields.
type Delivered struct {
	Recorded
	// Cursor is where to go on after this event; "" in the middle of a batch, where no cursor is known.
	Cursor string
}

// Storable reports whether a name can be that of a stream, a type or an event on every database: UTF-8 without NUL. It
// is for adapters, which have nothing under other names.
func Storable(name string) bool { return utf8.ValidString(name) && strings.IndexByte(name, 0) < 0 }

// Repeated returns what an append that was refused with err recorded earlier, or else err: it is no conflict to repeat
// an append with IDs of the caller's own. It is for adapters, which have made prepared of events by Prepare.
func Repeated(ctx context.Context, s Store, stream string, expected int64, events, prepared []Event,
	err error) ([]Recorded, error) {
	if !errors.Is(err, repository.ErrConflict) && !errors.Is(err, repository.ErrUnique) ||
		slices.ContainsFunc(events, func(e Event) bool { return e.ID == "" }) {
		return nil, err
	}
	var out []Recorded
	for r, lerr := range s.LoadFrom(ctx, stream, max(expected, 0)) {
		if lerr != nil {
			return nil, err
		}
		e := prepared[len(out)]
		if expected == AnyVersion && len(out) == 0 && r.ID != e.ID { // it may be anywhere
			continue
		}
		if r.ID != e.ID || r.Type != e.Type || r.Schema != e.Schema || !bytes.Equal(r.Data, e.Data) {
			return nil, err
		}
		if out = append(out, r); len(out) == len(prepared) {
			return out, nil
		}
	}
	return nil, err
}

// Prepare checks and completes events for an adapter: ids, schema, data, and the metadata of ctx.
func Prepare(ctx context.Context, p propagation.TextMapPropagator, stream string, expected int64, events []Event,
	newID func() string) ([]Event, error) {
	if stream == "" || len(stream) > 300 || !Storable(stream) || expected < AnyVersion || len(events) == 0 {
		return nil, fmt.Errorf("%w: stream %q, expected version %d, %d events", ErrAppend, stream[:min(len(stream), 64)],
			expected, len(events))
	}
	if p == nil {
		p = correlation.DefaultPropagator()
	}
	out := make([]Event, len(events))
	seen := make(map[string]bool, len(events))
	for i, e := range events {
		if e.Type == "" {
			return nil, fmt.Errorf("%w: event %d of stream %s has no type", ErrAppend, i, stream)
		}
		if e.Type == Deleted || !Storable(e.Type) || !Storable(e.ID) || e.Schema < 0 {
			return nil, fmt.Errorf("%w: type %q, schema %d or the id of event %d of stream %s", ErrAppend, e.Type, e.Schema, i,
				stream)
		}
		if len(e.Data) == 0 {
			e.Data = json.RawMessage("null")
		}
		if !json.Valid(e.Data) || !utf8.Valid(e.Data) {
			return nil, fmt.Errorf("%w: the data of event %d of stream %s is no JSON", ErrAppend, i, stream)
		}
		if e.ID == "" {
			e.ID = newID()
		}
		if seen[e.ID] {
			return nil, fmt.Errorf("%w: the id of event %d of stream %s is there twice", ErrAppend, i, stream)
		}
		seen[e.ID] = true
		if e.Schema == 0 {
			e.Schema = 1
		}
		meta := propagation.MapCarrier{}
		p.Inject(ctx, meta)
		for k, v := range e.Metadata {
			meta[k] = v
		}
		e.Metadata = meta
		out[i] = e
	}
	return out, nil
}
