package integration

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/authn/authntest"
	"github.com/sillar-go/sillar/authn/sqlapikeys"
	"github.com/sillar-go/sillar/authn/sqlkeys"
	"github.com/sillar-go/sillar/authn/sqltokens"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/inbox/sqlinbox"
	"github.com/sillar-go/sillar/messaging/outbox/outboxtest"
	"github.com/sillar-go/sillar/messaging/outbox/sqloutbox"
	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/eventstore"
	"github.com/sillar-go/sillar/repository/eventstore/eventstoretest"
	"github.com/sillar-go/sillar/repository/eventstore/sqlevents"
	"github.com/sillar-go/sillar/repository/repositorytest"
	"github.com/sillar-go/sillar/repository/sqldb"
	"github.com/sillar-go/sillar/repository/sqlrepo"
	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/barrier"
	"github.com/sillar-go/sillar/saga/sagasql"
	"github.com/sillar-go/sillar/saga/sagatest"
)

func sagas() adapter {
	schema := func(ctx context.Context, db *sqldb.DB) error {
		return sagasql.Must(sagasql.New(db, sagasql.Config{})).EnsureSchema(ctx)
	}
	const columns = `id, name, version, shape, status, position, state, steps, headers, audit, revision, fence, owner,
		wake_at, signals, signal_seq, created_at, updated_at`
	of := func(id, status, owner, wake string) string {
		return "INSERT INTO sillar_sagas (" + columns + ") SELECT '" + id + "' || i, 'trip', 1, 'abc', '" + status +
			"', 0, '1', '[]', '{}', '[]', 1, 1, '" + owner + "', " + wake + ", '{}', 0, i, i FROM series"
	}
	const later = "4000000000000000"
	return adapter{name: "sagas", schema: schema, run: func(t *testing.T, open func(t testing.TB) *sqldb.DB) {
		for _, history := range []bool{false, true} {
			sagatest.Run(t, func(t testing.TB) saga.Store {
				s := sagasql.Must(sagasql.New(open(t), sagasql.Config{History: history}))
				must(t, s.EnsureSchema(t.Context()))
				return s
			}, sagatest.Features{})
		}
	}, fill: []string{
		of("sleeping", "RUNNING", "", later), of("ended", "COMPLETED", "", later), of("undone", "COMPENSATED", "", later),
		of("stuck", "STUCK", "", "0"), of("working", "RUNNING", "alive", "0"),
		"INSERT INTO sillar_orchestrators (node, expires_at) SELECT 'alive', " + later + " FROM series WHERE i = 1",
		`INSERT INTO sillar_saga_attributes (name, value, created_at, saga_id)
			SELECT 'customer', i % 2, i, 'ended' || i FROM series`,
		`INSERT INTO sillar_saga_history (saga_id, revision, fence, owner, status, position, steps, failed_step, cause, at)
			SELECT 'ended' || i, 1, 1, '', 'RUNNING', 0, '[]', '', '', i FROM series`,
	}, reads: map[string]string{
		"DELETE FROM sillar_orchestrators":        "it reads one row for each process",
		"JOIN sillar_sagas s ON s.id = a.saga_id": "what an attribute selects is read, and a status chooses from that",
	}}
}

func outboxes() adapter {
	schema := func(ctx context.Context, db *sqldb.DB) error {
		return sqloutbox.Must(sqloutbox.New(db, sqloutbox.Config{Source: "test"})).EnsureSchema(ctx)
	}
	of := func(key, due string) string {
		return `INSERT INTO sillar_outbox (id, topic, source, key, content_type, occurred_at, headers, body, created_at,
			due_at) SELECT '` + key + `' || i, 't', 's', '` + key + `' || i % 100, '', 1, '{}', '1', 1, ` + due + ` FROM series`
	}
	return adapter{name: "outbox", schema: schema, run: func(t *testing.T, open func(t testing.TB) *sqldb.DB) {
		outboxtest.Run(t, func(t *testing.T) outboxtest.Box {
			db := open(t)
			must(t, schema(t.Context(), db))
			o := sqloutbox.Must(sqloutbox.New(db, sqloutbox.Config{Source: "test"}))
			return outboxtest.Box{Store: o, Commit: func(ctx context.Context, fail error, events ...messaging.Envelope) error {
				return db.InTx(ctx, func(ctx context.Context) error { return errors.Join(o.PublishBatch(ctx, events), fail) })
			}}
		})
	}, fill: []string{of("new", "0"), of("held", "4000000000000000"), of("stops", "-4000000000000000")},
		reads: map[string]string{
			"\nSCAN sillar_outbox USING INDEX sillar_outbox_failed": "it changes what it reads",
			"LIMIT 100000) c)": "it counts what it reads, up to a limit",
		}}
}

func inboxes() adapter {
	schema := func(ctx context.Context, db *sqldb.DB) error {
		return sqlinbox.Must(sqlinbox.New(db, sqlinbox.Config{})).EnsureSchema(ctx)
	}
	return adapter{name: "inbox", schema: schema, run: func(t *testing.T, open func(t testing.TB) *sqldb.DB) {
		db := open(t)
		must(t, schema(t.Context(), db))
		i := sqlinbox.Must(sqlinbox.New(db, sqlinbox.Config{Keep: time.Hour}))
		for range 2 {
			_, err := i.Once(t.Context(), "c", "m", func(context.Context) error { return nil })
			must(t, err)
		}
		_, err := i.Purge(t.Context())
		must(t, err)
	}, fill: []string{
		"INSERT INTO sillar_inbox (consumer, id, applied_at) SELECT 'c', 'old' || i, 4000000000000000 FROM series",
	}}
}

func events() adapter {
	schema := func(ctx context.Context, db *sqldb.DB) error {
		return sqlevents.Must(sqlevents.New(db, sqlevents.Config{})).EnsureSchema(ctx)
	}
	return adapter{name: "events", schema: schema, run: func(t *testing.T, open func(t testing.TB) *sqldb.DB) {
		eventstoretest.Run(t, func(t testing.TB) eventstore.Store {
			db := open(t)
			must(t, schema(t.Context(), db))
			return sqlevents.Must(sqlevents.New(db, sqlevents.Config{}))
		}, eventstoretest.Features{})
	}, fill: []string{
		"postgresql: INSERT INTO sillar_streams (stream, version, last_xid) SELECT 'order-' || i, 1, @xid FROM series",
		"sqlite: INSERT INTO sillar_streams (stream, version) SELECT 'order-' || i, 1 FROM series",
		`postgresql: INSERT INTO sillar_events (stream, version, xid, id, type, schema, data, metadata, recorded_at)
			SELECT 'order-' || i, 1, @xid, 'e' || i, 'x', 1, '1'@json, '{}'@json, 1 FROM series`,
		`sqlite: INSERT INTO sillar_events (stream, version, id, type, schema, data, metadata, recorded_at)
			SELECT 'order-' || i, 1, 'e' || i, 'x', 1, '1', '{}', 1 FROM series`,
		"INSERT INTO sillar_snapshots (stream, schema, version, state) SELECT 'order-' || i, 1, 1, '1' FROM series",
		"INSERT INTO sillar_checkpoints (projection, place) SELECT 'p' || i, '' FROM series",
	}, reads: map[string]string{
		" LIMIT 5000) AS w ": "it looks at a window of events, of a fixed size",
		"<= ($3::text::xid8": "it selects from a window of events, of a fixed size",
	}}
}

func tokens() adapter {
	schema := func(ctx context.Context, db *sqldb.DB) error {
		return sqltokens.Must(sqltokens.New(db, sqltokens.Config{})).EnsureSchema(ctx)
	}
	return adapter{name: "tokens", schema: schema, run: func(t *testing.T, open func(t testing.TB) *sqldb.DB) {
		authntest.RunTokens(t, func(t *testing.T) authn.TokenStore {
			db := open(t)
			must(t, schema(t.Context(), db))
			return sqltokens.Must(sqltokens.New(db, sqltokens.Config{}))
		})
	}, fill: []string{
		`INSERT INTO sillar_refresh_tokens (hash, family, subject, profile, created_at, expires_at, family_ends_at, used_at)
			SELECT 'h' || i, 'f' || i, 'u' || i, '{}', 1, 4000000000000000, 4000000000000000, 0 FROM series`,
		"INSERT INTO sillar_revoked_tokens (id, expires_at) SELECT 'j' || i, 4000000000000000 FROM series",
	}}
}

func apiKeys() adapter {
	schema := func(ctx context.Context, db *sqldb.DB) error {
		return sqlapikeys.Must(sqlapikeys.New(db, sqlapikeys.Config{})).EnsureSchema(ctx)
	}
	return adapter{name: "api keys", schema: schema, run: func(t *testing.T, open func(t testing.TB) *sqldb.DB) {
		authntest.RunAPIKeys(t, func(t *testing.T) authn.APIKeyStore {
			db := open(t)
			must(t, schema(t.Context(), db))
			return sqlapikeys.Must(sqlapikeys.New(db, sqlapikeys.Config{}))
		})
	}, fill: []string{
		`INSERT INTO sillar_api_keys (id, subject, name, profile, hash, previous_hash, previous_until, created_at, rotated_at,
			expires_at) SELECT 'k' || i, 's' || i, 'n', '{}', 'h', '', 0, 1, 0, 4000000000000000 FROM series`,
	}}
}

// signingKeys has a row for each key set: a thousand are many.
func signingKeys() adapter {
	secret := []byte(strings.Repeat("s", 32))
	schema := func(ctx context.Context, db *sqldb.DB) error {
		return sqlkeys.Must(sqlkeys.New(db, sqlkeys.Config{Secret: secret})).EnsureSchema(ctx)
	}
	return adapter{name: "signing keys", schema: schema, run: func(t *testing.T, open func(t testing.TB) *sqldb.DB) {
		authntest.RunKeys(t, func(t *testing.T) (authn.KeyStore, func() authn.KeyStore) {
			db := open(t)
			must(t, schema(t.Context(), db))
			again := func() authn.KeyStore { return sqlkeys.Must(sqlkeys.New(db, sqlkeys.Config{Secret: secret})) }
			return again(), again
		})
	}, fill: []string{
		"postgresql: INSERT INTO sillar_signing_keys (name, version, sealed) SELECT 'n' || i, 1, '' FROM series",
		"sqlite: INSERT INTO sillar_signing_keys (name, version, sealed) SELECT 'n' || i, 1, x'' FROM series",
	}}
}

func barriers() adapter {
	schema := func(ctx context.Context, db *sqldb.DB) error {
		return barrier.Must(barrier.New(db, barrier.Config{})).EnsureSchema(ctx)
	}
	return adapter{name: "barrier", schema: schema, run: func(t *testing.T, open func(t testing.TB) *sqldb.DB) {
		db := open(t)
		must(t, schema(t.Context(), db))
		b := barrier.Must(barrier.New(db, barrier.Config{}))
		for _, key := range []string{"s/pay/do", "s/pay/do", "s/pay/undo", "s2/pay/undo"} {
			must(t, db.InTx(t.Context(), func(ctx context.Context) error {
				return b.Do(ctx, key, func(context.Context) error { return nil })
			}))
		}
		for range 2 {
			must(t, db.InTx(t.Context(), func(ctx context.Context) error {
				_, err := barrier.Result(ctx, b, "s3/pay/do", func(context.Context) (int, error) { return 1, nil })
				return err
			}))
		}
		_, err := b.Prune(t.Context(), time.Now().Add(-time.Hour))
		must(t, err)
	}, fill: []string{
		`INSERT INTO sillar_barrier (step, op, set_by, created_at)
			SELECT 'o' || i || '/pay', 'do', 'do', 4000000000000000 FROM series`,
		`INSERT INTO sillar_barrier_results (step, op, result, created_at)
			SELECT 'o' || i || '/pay', 'do', '1', 4000000000000000 FROM series`,
	}}
}

// repositories runs what is looked up by id, by what is unique, and page by page. What a caller filters by has the
// indexes that the caller makes.
func repositories() adapter {
	schema := func(ctx context.Context, db *sqldb.DB) error {
		statement, err := sqlrepo.Schema[repositorytest.Widget](db.Dialect(), "widgets", repositorytest.Unique...)
		if err != nil {
			return err
		}
		for _, column := range []string{"small", "rank", "place.city"} {
			index, err := sqlrepo.Index[repositorytest.Widget](db.Dialect(), "widgets", column)
			if err != nil {
				return err
			}
			statement += index
		}
		return db.Exec(ctx, statement)
	}
	return adapter{name: "repository", schema: schema, run: func(t *testing.T, open func(t testing.TB) *sqldb.DB) {
		db := open(t)
		must(t, schema(t.Context(), db))
		useRepository(t, sqlrepo.Must(sqlrepo.New[repositorytest.Widget](db, sqlrepo.Config{Table: "widgets"})),
			[][]repository.Sort[repositorytest.Widget]{{repositorytest.Small.Asc()}, {repositorytest.Small.Desc()},
				{repositorytest.Rank.Asc()}, {repositorytest.City.Asc()}})
	}, fill: []string{
		`postgresql: INSERT INTO widgets (id, version, created_at, updated_at, sku, name, color, price, small, weight, active,
			made, rank, tags, parts, place, other_name) SELECT 'w' || i, 1, now(), now(), 'sku-' || i, 'n', '', i, 0, 0, false,
			now(), 0, '[]', '{}', '{"city": "x"}', '' FROM series`,
		`sqlite: INSERT INTO widgets (id, version, created_at, updated_at, sku, name, color, price, small, weight, active,
			made, rank, tags, parts, place, other_name) SELECT 'w' || i, 1, 1, 1, 'sku-' || i, 'n', '', i, 0, 0, false, 1, 0,
			'[]', '{}', '{"city": "x"}', '' FROM series`,
	}, reads: map[string]string{"ORDER BY [id] LIMIT 4\nSCAN": "it reads the first page in the order of the index"}}
}

// useRepository sends every statement of a repository, and pages in orders that have an index.
func useRepository(t *testing.T, r repository.Repository[repositorytest.Widget],
	sorts [][]repository.Sort[repositorytest.Widget]) {
	t.Helper()
	ctx := t.Context()
	var list []repositorytest.Widget
	for i := range 10 {
		list = append(list, repositorytest.Widget{SKU: fmt.Sprint("sku", i)})
		if i > 0 { // in the midst of what fill makes, which all has the same sort keys
			list[i].ID, list[i].Rank = fmt.Sprint("w5-", i), new(int64)
			list[i].Place.City = "x"
		}
	}
	w, err := r.Create(ctx, list[0])
	must(t, err)
	made, err := r.CreateMany(ctx, list[1:])
	must(t, err)
	w, err = r.Get(ctx, w.ID)
	must(t, err)
	w, err = r.Update(ctx, w.ID, func(_ context.Context, w *repositorytest.Widget) error { w.Name = "new"; return nil })
	must(t, err)
	_, err = r.Replace(ctx, w)
	must(t, err)
	_, err = r.Put(ctx, repositorytest.Widget{SKU: "sku-new"})
	must(t, err)
	_, err = r.GetMany(ctx, []string{w.ID, made[0].ID})
	must(t, err)
	for _, sort := range append(sorts, nil) {
		q := repository.Query[repositorytest.Widget]{Limit: 3, Sort: sort}
		page, err := r.Find(ctx, q)
		must(t, err)
		q.After = page.Next
		_, err = r.Find(ctx, q)
		must(t, err)
	}
	_, err = repository.One(ctx, r, repositorytest.SKU.Eq("sku3"))
	must(t, err)
	_, err = r.UpdateWhere(ctx, repositorytest.SKU.Eq("sku3"), repositorytest.SKU.To("sku33"))
	must(t, err)
	_, err = r.DeleteWhere(ctx, repositorytest.SKU.Eq("sku33"))
	must(t, err)
	must(t, r.Delete(ctx, w.ID))
}
