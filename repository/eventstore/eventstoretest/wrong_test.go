package eventstoretest_test

import (
	"context"
	"iter"

	"github.com/sillar-go/sillar/repository/eventstore"
	"github.com/sillar-go/sillar/repository/eventstore/memevents"
)

// wrong is a store in memory whose methods can be replaced.
type wrong struct {
	*memevents.Store
	append func(ctx context.Context, stream string, expected int64,
		events []eventstore.Event) ([]eventstore.Recorded, error)
	load   func(ctx context.Context, stream string, after int64) iter.Seq2[eventstore.Recorded, error]
	read   func(ctx context.Context, cursor string, limit int) ([]eventstore.Recorded, string, error)
	save   func(ctx context.Context, s eventstore.Snapshot) error
	snap   func(ctx context.Context, stream string, schema int) (eventstore.Snapshot, bool, error)
	move   func(ctx context.Context, projection, from, to string) error
	redact func(ctx context.Context, stream string) error
	filter func(ctx context.Context, f eventstore.Filter, cursor string, limit int) ([]eventstore.Recorded, string, error)
	remove func(ctx context.Context, stream string, expected int64) error
}

func (w *wrong) ReadFiltered(ctx context.Context, f eventstore.Filter, cursor string,
	limit int) ([]eventstore.Recorded, string, error) {
	if w.filter == nil {
		if f.All() {
			return w.Read(ctx, cursor, limit)
		}
		return w.Store.ReadFiltered(ctx, f, cursor, limit)
	}
	return w.filter(ctx, f, cursor, limit)
}

func (w *wrong) Delete(ctx context.Context, stream string, expected int64) error {
	if w.remove == nil {
		return w.Store.Delete(ctx, stream, expected)
	}
	return w.remove(ctx, stream, expected)
}

func (w *wrong) Redact(ctx context.Context, stream string) error {
	if w.redact == nil {
		return w.Store.Redact(ctx, stream)
	}
	return w.redact(ctx, stream)
}

func (w *wrong) Append(ctx context.Context, stream string, expected int64,
	events ...eventstore.Event) ([]eventstore.Recorded, error) {
	if w.append == nil {
		return w.Store.Append(ctx, stream, expected, events...)
	}
	return w.append(ctx, stream, expected, events)
}

func (w *wrong) LoadFrom(ctx context.Context, stream string, after int64) iter.Seq2[eventstore.Recorded, error] {
	if w.load == nil {
		return w.Store.LoadFrom(ctx, stream, after)
	}
	return w.load(ctx, stream, after)
}

func (w *wrong) Read(ctx context.Context, cursor string, limit int) ([]eventstore.Recorded, string, error) {
	if w.read == nil {
		return w.Store.Read(ctx, cursor, limit)
	}
	return w.read(ctx, cursor, limit)
}

func (w *wrong) SaveSnapshot(ctx context.Context, s eventstore.Snapshot) error {
	if w.save == nil {
		return w.Store.SaveSnapshot(ctx, s)
	}
	return w.save(ctx, s)
}

func (w *wrong) LoadSnapshot(ctx context.Context, stream string, schema int) (eventstore.Snapshot, bool, error) {
	if w.snap == nil {
		return w.Store.LoadSnapshot(ctx, stream, schema)
	}
	return w.snap(ctx, stream, schema)
}

func (w *wrong) MoveCheckpoint(ctx context.Context, projection, from, to string) error {
	if w.move == nil {
		return w.Store.MoveCheckpoint(ctx, projection, from, to)
	}
	return w.move(ctx, projection, from, to)
}

func (w *wrong) version(stream string) (n int64) {
	for range w.Store.LoadFrom(context.Background(), stream, 0) {
		n++
	}
	return n
}
