// Package sqlinbox applies each message once, by a row in PostgreSQL or SQLite that is written in the handler's own
// transaction.
//
//	inbox, err := sqlinbox.New(db, sqlinbox.Config{})
//	g := router.Group("billing", messaging.GroupConfig{Dedup: inbox})
//	messaging.Handle(g, "orders.created", func(ctx context.Context, m messaging.Message[OrderCreated]) error {
//		return invoices.Create(ctx, ...) // a repository over db: joins the transaction that ctx carries
//	})
//
// # Guarantees
//
//   - What the handler writes through db and the note that the message was applied are committed together, or not at
//     all: a handler that fails runs again, one that succeeded never does.
//   - Of two deliveries of one message at the same time, the second waits for the first, and then is a duplicate, or
//     runs if the first failed.
//   - Notes are kept for Config.Keep: a duplicate that comes later than that is applied again.
//
// # What it does not do
//
// What the handler does outside db, such as sending mail, is done again when the transaction fails. On SQLite a handler
// holds the database's only writer as long as it runs.
package sqlinbox

import (
	"cmp"
	"context"
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/repository/sqldb"
)

// Migrations make the table sillar_inbox; see sqldb.Migrations.
//
//go:embed migrations
var Migrations embed.FS

// Config tunes an Inbox. The zero value is useful.
type Config struct {
	// Prefix begins the table's name. Default sqldb.DefaultPrefix.
	Prefix string
	// Keep is how long a message is remembered. Default 7 days; negative: forever. Longer than messages may be delayed
	// by retries, dead letters that are driven again, and outages.
	Keep time.Duration
	// Logger gets failed purges (warn). Default slog.Default().
	Logger *slog.Logger
}

// Inbox is a messaging.Deduplicator. It is safe for concurrent use, in many processes.
type Inbox struct {
	db     *sqldb.DB
	cfg    Config
	table  string
	purged atomic.Int64 // when, in microseconds
}

var _ messaging.Deduplicator = (*Inbox)(nil)

// New makes an inbox over a database. The table must exist: see Migrations and EnsureSchema.
func New(db *sqldb.DB, cfg Config) (*Inbox, error) {
	if db == nil {
		return nil, errors.New("sqlinbox: New needs a database")
	}
	prefix, err := sqldb.Prefix(cfg.Prefix)
	if err != nil {
		return nil, err
	}
	cfg.Prefix = prefix
	if cfg.Keep == 0 {
		cfg.Keep = 7 * 24 * time.Hour
	}
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	return &Inbox{db: db, cfg: cfg, table: prefix + "inbox"}, nil
}

// Must returns i or panics with err.
func Must(i *Inbox, err error) *Inbox {
	if err != nil {
		panic(err)
	}
	return i
}

// EnsureSchema makes the table where it does not exist; see sqldb.DB.EnsureSchema.
func (i *Inbox) EnsureSchema(ctx context.Context) error {
	return i.db.EnsureSchema(ctx, Migrations, i.cfg.Prefix)
}

// Once implements messaging.Deduplicator. The context that fn gets carries the transaction; fn runs again when the
// transaction loses against another one (see sqldb.DB.InTx).
func (i *Inbox) Once(ctx context.Context, consumer, id string,
	fn func(ctx context.Context) error) (dup bool, err error) {
	err = i.db.InTx(ctx, func(ctx context.Context) error {
		n, err := i.db.Querier(ctx).Exec(ctx, "INSERT INTO "+i.table+
			" (consumer, id, applied_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
			consumer, id, time.Now().UnixMicro())
		if err != nil {
			return fmt.Errorf("sqlinbox: note message %s: %w", id, err)
		}
		if dup = n == 0; dup {
			return nil
		}
		return fn(ctx)
	})
	if err != nil {
		return false, err
	}
	i.db.AfterCommit(ctx, func() { i.purgeSometimes(ctx) }) // inside a transaction it would wait for that one
	return dup, nil
}

// How often each process looks for old notes; and how soon again where there were more than it removes at a time, which
// a consumer of many messages is never done with else.
const (
	purgeEvery = 10 * time.Minute
	purgeNext  = time.Second
)

func (i *Inbox) purgeSometimes(ctx context.Context) {
	now, last := time.Now().UnixMicro(), i.purged.Load()
	if i.cfg.Keep < 0 || now-last < purgeEvery.Microseconds() || !i.purged.CompareAndSwap(last, now) {
		return
	}
	n, err := i.Purge(ctx)
	if err != nil && ctx.Err() == nil {
		i.cfg.Logger.WarnContext(ctx, "sqlinbox: old notes could not be removed", "error", err)
	}
	if n >= purgeMost {
		i.purged.CompareAndSwap(now, now-(purgeEvery-purgeNext).Microseconds())
	}
}

// purgeChunk bounds a statement, so that other writers wait briefly; purgeMost bounds all of a call.
const (
	purgeChunk = 1000
	purgeMost  = 10 * purgeChunk
)

// Purge removes notes that are older than Config.Keep, at most 10,000 at a time, and returns their number. Once
// does it by itself now and then, but not inside a transaction that the caller has begun without InTx
// (sqldb.DB.WithPgxTx, WithSQLTx).
func (i *Inbox) Purge(ctx context.Context) (int64, error) {
	if i.cfg.Keep < 0 {
		return 0, nil
	}
	ctx = i.db.WithoutTx(ctx)
	// By the places of rows, which no update moves: a join by their keys may read the whole table.
	statement := "DELETE FROM " + i.table + " WHERE ctid = ANY(ARRAY(SELECT ctid FROM " + i.table +
		" WHERE applied_at < $1 ORDER BY applied_at LIMIT $2))"
	if i.db.Dialect() == sqldb.SQLite {
		statement = "DELETE FROM " + i.table + " WHERE rowid IN (SELECT rowid FROM " + i.table +
			" WHERE applied_at < $1 ORDER BY applied_at LIMIT $2)"
	}
	var sum int64
	for sum < purgeMost {
		n, err := i.db.Querier(ctx).Exec(ctx, statement, sqldb.Replan, time.Now().Add(-i.cfg.Keep).UnixMicro(), purgeChunk)
		sum += n
		if err != nil {
			return sum, fmt.Errorf("sqlinbox: purge: %w", err)
		}
		if n < purgeChunk {
			break
		}
	}
	return sum, nil
}
