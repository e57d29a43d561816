package repository

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/sillar-go/sillar/repository/driver"
)

// Meta holds the fields that every entity has. Embed it, or declare the four fields.
type Meta struct {
	// ID is a UUIDv7, set by Create when it is empty.
	ID string `json:"id"`
	// Version counts the writes from 1. It is what optimistic locking compares.
	Version int64 `json:"version"`
	// CreatedAt is set by Create, in UTC.
	CreatedAt time.Time `json:"created_at"`
	// UpdatedAt is set by every write, in UTC.
	UpdatedAt time.Time `json:"updated_at"`
}

// Repository stores entities of one type. Every adapter implements it, and package repositorytest checks that it
// does. Methods take what they are given as a copy and return what is stored.
type Repository[E any] interface {
	Reader[E]
	// Create stores a new entity. It sets Version and the times, and ID when it is empty. When ID or another unique
	// field is taken the error is a *UniqueError. The functions run with the write, see WriteHook.
	Create(ctx context.Context, e E, then ...WriteHook[E]) (E, error)
	// CreateMany stores new entities with as few round trips as it can. Where ID, Version or the times are set they stay,
	// so that imports keep theirs. All or none are stored; on MongoDB, which has no transaction here, those before the one
	// that fails.
	CreateMany(ctx context.Context, list []E) ([]E, error)
	// Put stores e under its ID: a new entity where there is none, else in place of the one that is there, whatever its
	// Version. CreatedAt of one that is there stays. The last Put wins: prefer Update where others may write.
	Put(ctx context.Context, e E) (E, error)
	// Update reads the entity, lets change change it and stores it, so that no concurrent change is lost. change may
	// run again on a fresh read; when it fails nothing is stored. ID, Version and times are not for change to set.
	Update(ctx context.Context, id string, change WriteHook[E]) (E, error)
	// Replace stores e over the entity with its ID, if that still has e.Version; else the error is a *ConflictError.
	Replace(ctx context.Context, e E) (E, error)
	// Delete removes the entity, or returns ErrNotFound. The functions see what is removed, and run with the write; one of
	// IfVersion removes it only in the version that the caller has seen.
	Delete(ctx context.Context, id string, then ...WriteHook[E]) error
	// UpdateWhere sets fields of all entities that match, in one statement, and returns how many. Versions and UpdatedAt
	// move on. No functions run: nothing is published.
	UpdateWhere(ctx context.Context, where Filter[E], set ...Assignment[E]) (int64, error)
	// DeleteWhere removes all entities that match, in one statement, and returns how many. No functions run.
	DeleteWhere(ctx context.Context, where Filter[E]) (int64, error)
}

// Reader is what reads: a Repository, or a view of a smaller struct over the entities of one.
type Reader[E any] interface {
	// Get returns the entity with the id, or ErrNotFound.
	Get(ctx context.Context, id string) (E, error)
	// GetMany returns the entities with the ids in the order of ids; missing ones are left out.
	GetMany(ctx context.Context, ids []string) ([]E, error)
	// Find returns a page of the entities that match.
	Find(ctx context.Context, q Query[E]) (Page[E], error)
	// Each streams all entities that match, page by page, from Query.After on. It yields an error at most once, last.
	// Query.Limit is the size of a page.
	Each(ctx context.Context, q Query[E]) iter.Seq2[E, error]
	// Count returns how many entities match. The zero Filter matches all.
	Count(ctx context.Context, where Filter[E]) (int64, error)
}

// One returns the entity that matches, such as by a unique field: ErrNotFound where there is none, and a *QueryError
// where there are several.
func One[E any](ctx context.Context, r Reader[E], where Filter[E]) (E, error) {
	var zero E
	page, err := r.Find(ctx, Query[E]{Where: where, Limit: 2})
	switch {
	case err != nil:
		return zero, err
	case len(page.Items) == 0:
		return zero, fmt.Errorf("repository: one: %w", ErrNotFound)
	case len(page.Items) > 1:
		return zero, &QueryError{Reason: "several entities match, want one"}
	}
	return page.Items[0], nil
}

// CreateIfAbsent stores e unless an entity matches, such as by the unique fields of e, and returns what is stored, and
// whether that is e. Of several callers at once one creates, if what where selects is unique in the database. Inside a
// transaction of PostgreSQL the others get the *UniqueError, which has ended it unless sqldb.DB.Savepoint is around.
func CreateIfAbsent[E any](ctx context.Context, r Repository[E], e E, where Filter[E]) (stored E, created bool,
	err error) {
	if stored, err = One(ctx, r, where); !errors.Is(err, ErrNotFound) {
		return stored, false, err
	}
	stored, err = r.Create(ctx, e)
	if errors.Is(err, ErrUnique) {
		if was, oerr := One(ctx, r, where); oerr == nil {
			return was, false, nil
		}
	}
	return stored, err == nil, err
}

// Exists reports whether any entity matches. It reads one.
func Exists[E any](ctx context.Context, r Reader[E], where Filter[E]) (bool, error) {
	page, err := r.Find(ctx, Query[E]{Where: where, Limit: 1})
	return len(page.Items) > 0, err
}

// IfVersion is a function for Delete and Update that fails with a *ConflictError unless the entity has the version.
func IfVersion[E any](version int64) WriteHook[E] {
	return func(_ context.Context, e *E) error {
		m, err := driver.MappingOf[E]()
		if err != nil {
			return err
		}
		l := driver.NewLifecycle[E](m, 0)
		if actual := l.Version(e); actual != version {
			return &ConflictError{ID: l.ID(e), Expected: version, Actual: actual}
		}
		return nil
	}
}

// WriteHook is run as a part of a write: on SQL inside its transaction, which ctx carries, on MongoDB with a collector
// in ctx of what is stored inside the document. So what it publishes through an outbox is stored exactly when the write
// is. It may run more than once. An error undoes the write.
type WriteHook[E any] func(ctx context.Context, e *E) error

// Transactor runs a function in a transaction that the context carries; sqldb.DB is one. The function may run again.
type Transactor interface {
	InTx(ctx context.Context, fn func(ctx context.Context) error) error
}

// Limits of Find.
const (
	// DefaultLimit is the size of a page when Query.Limit is 0.
	DefaultLimit = 50
	// MaxLimit is the largest size of a page; a greater Query.Limit is a *QueryError.
	MaxLimit = 1000
	// MaxOffset is the largest Query.Offset: an offset costs as much as reading all that it skips.
	MaxOffset = 10_000
)

// Query says which entities, in which order, and how many. The zero Query is the first page of all, by id.
type Query[E any] struct {
	// Where selects. The zero Filter selects all.
	Where Filter[E]
	// Sort orders, most significant first; the id always comes last, in the direction of the one before.
	Sort []Sort[E]
	// Limit is the size of the page. 0 means DefaultLimit, more than MaxLimit is an error.
	Limit int
	// After is the Page.Next of the page before. A cursor of another query is ErrCursor.
	After string
	// Offset skips entities, at most MaxOffset. It reads what it skips, and entities written meanwhile shift the
	// pages: prefer After. It does not go together with After.
	Offset int
}

// Plan checks the query. Nothing has been sent when it fails. It is for adapters.
func (q Query[E]) Plan() (*driver.Plan, error) {
	m, err := driver.MappingOf[E]()
	if err != nil {
		return nil, err
	}
	where, err := q.Where.Node()
	switch {
	case err != nil:
		return nil, err
	case q.Limit < 0 || q.Limit > MaxLimit:
		return nil, &QueryError{fmt.Sprintf("limit %d is outside 1 to %d", q.Limit, MaxLimit)}
	case q.Offset < 0 || q.Offset > MaxOffset:
		return nil, &QueryError{fmt.Sprintf("offset %d is outside 0 to %d", q.Offset, MaxOffset)}
	case q.Offset > 0 && q.After != "":
		return nil, &QueryError{"offset and cursor do not go together"}
	}
	var keys []driver.Key
	for _, s := range q.Sort {
		if s.err != nil {
			return nil, s.err
		}
		keys = append(keys, driver.Key{Column: s.column, Desc: s.desc})
	}
	p, err := driver.NewPlan(m, where, keys, q.After)
	if err != nil {
		return nil, err
	}
	p.Limit, p.Offset = cmp.Or(q.Limit, DefaultLimit), q.Offset
	return p, nil
}

// Pages streams all pages of find, from After on. Adapters make Each of it.
func (q Query[E]) Pages(ctx context.Context, find func(context.Context,
	Query[E]) (Page[E], error)) iter.Seq2[E, error] {
	return func(yield func(E, error) bool) {
		q := q // it may be ranged over again
		for {
			page, err := find(ctx, q)
			if err != nil {
				var zero E
				yield(zero, err)
				return
			}
			for _, e := range page.Items {
				if !yield(e, nil) {
					return
				}
			}
			if page.Next == "" {
				return
			}
			q.After, q.Offset = page.Next, 0
		}
	}
}

// Page is a part of a result.
type Page[E any] struct {
	// Items are the entities, at most Query.Limit.
	Items []E
	// Next is the cursor of the next page, or "" on the last one.
	Next string
}
