package sqltokens

import (
	"cmp"
	"context"
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/authn/internal/record"
	"github.com/sillar-go/sillar/repository/sqldb"
)

// Migrations are the tables, for package migrate and sqldb.SchemaSQL.
//
//go:embed migrations
var Migrations embed.FS

// Config tunes a Store. The zero Config is useful.
type Config struct {
	// Prefix is the beginning of the names of the tables. Default "sillar_".
	Prefix string
	// Logger logs a revocation that could not be repeated after a rollback. Default slog.Default().
	Logger *slog.Logger
}

// Store is an authn.TokenStore.
type Store struct {
	db              *sqldb.DB
	cfg             Config
	prefix          string
	tokens, revoked string // table names

	dropping sync.Mutex // held while pending families are removed
	mu       sync.Mutex
	pending  []string // families that are revoked, and are removed once the transaction of a caller has ended
}

var _ authn.TokenStore = (*Store)(nil)

// New returns the store in db.
func New(db *sqldb.DB, cfg Config) (*Store, error) {
	if db == nil {
		return nil, errors.New("sqltokens: a database is needed")
	}
	p, err := sqldb.Prefix(cfg.Prefix)
	if err != nil {
		return nil, fmt.Errorf("sqltokens: %w", err)
	}
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	return &Store{db: db, cfg: cfg, prefix: p, tokens: p + "refresh_tokens", revoked: p + "revoked_tokens"}, nil
}

// Must returns s or panics with err.
func Must(s *Store, err error) *Store {
	if err != nil {
		panic(err)
	}
	return s
}

// EnsureSchema creates the tables that do not exist yet.
func (s *Store) EnsureSchema(ctx context.Context) error {
	return s.db.EnsureSchema(ctx, Migrations, s.prefix)
}

// Create implements authn.TokenStore.
func (s *Store) Create(ctx context.Context, x authn.RefreshToken) error {
	profile, err := record.Profile(x.Subject)
	if err != nil {
		return fmt.Errorf("sqltokens: add a token: %w", err)
	}
	_, err = s.db.Querier(ctx).Exec(ctx,
		"INSERT INTO "+s.tokens+" ("+columns+") VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
		x.Hash, x.Family, x.Subject.ID, profile,
		record.Micros(x.CreatedAt), record.Micros(x.ExpiresAt), record.Micros(x.FamilyEndsAt), record.Micros(x.UsedAt))
	if err != nil {
		return fmt.Errorf("sqltokens: add a token: %w", err)
	}
	return nil
}

const columns = "hash, family, subject, profile, created_at, expires_at, family_ends_at, used_at"

// scan reads a row of columns.
func scan(row sqldb.Row) (authn.RefreshToken, error) {
	var x authn.RefreshToken
	var subject, profile string
	var created, expires, ends, used int64
	err := row.Scan(&x.Hash, &x.Family, &subject, &profile, &created, &expires, &ends, &used)
	if err != nil {
		return authn.RefreshToken{}, err
	}
	if x.Subject, err = record.Subject(subject, profile); err != nil {
		return authn.RefreshToken{}, err
	}
	x.CreatedAt, x.ExpiresAt = record.Time(created), record.Time(expires)
	x.FamilyEndsAt, x.UsedAt = record.Time(ends), record.Time(used)
	return x, nil
}

// Lookup implements authn.TokenStore.
func (s *Store) Lookup(ctx context.Context, hash string) (authn.RefreshToken, error) {
	s.dropPending(ctx)
	x, err := scan(s.db.Querier(ctx).QueryRow(ctx, "SELECT "+columns+" FROM "+s.tokens+" WHERE hash = $1", hash))
	if errors.Is(err, sqldb.ErrNoRows) {
		return authn.RefreshToken{}, authn.ErrRefresh
	}
	if err != nil {
		return authn.RefreshToken{}, fmt.Errorf("sqltokens: read a token: %w", err)
	}
	if s.isPending(x.Family) {
		return authn.RefreshToken{}, authn.ErrRefresh
	}
	return x, nil
}

// Sessions implements authn.TokenStore.
func (s *Store) Sessions(ctx context.Context, subject string, now time.Time) (list []authn.RefreshToken, err error) {
	s.dropPending(ctx)
	// The newest token of a family is one of those that have not been exchanged.
	rows, err := s.db.Querier(ctx).Query(ctx, "SELECT "+columns+" FROM "+s.tokens+
		" WHERE subject = $1 AND used_at = 0 AND expires_at > $2 ORDER BY family, created_at DESC", subject,
		record.Micros(now))
	if err != nil {
		return nil, fmt.Errorf("sqltokens: list the sessions: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		x, err := scan(rows)
		if err != nil {
			return nil, fmt.Errorf("sqltokens: list the sessions: %w", err)
		}
		if (len(list) == 0 || list[len(list)-1].Family != x.Family) && !s.isPending(x.Family) {
			list = append(list, x)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("sqltokens: list the sessions: %w", err)
	}
	return list, nil
}

// lock holds other exchanges and revocations of the subject back until the transaction ends. SQLite has one writer.
func (s *Store) lock(ctx context.Context, subject string) error {
	if s.db.Dialect() != sqldb.PostgreSQL {
		return nil
	}
	_, err := s.db.Querier(ctx).Exec(ctx, "SELECT pg_advisory_xact_lock(hashtextextended($1, 7310582))", s.prefix+subject)
	return err
}

// Rotate implements authn.TokenStore. It joins a transaction in ctx. The revocation of a reused token persists when
// that transaction is rolled back. There is one limit, inside a transaction that the caller began (sqldb.WithSQLTx,
// WithPgxTx): on SQLite, and on PostgreSQL when the transaction itself has exchanged tokens of the login, the
// revocation is kept in memory, and counts in this process, until a call of this Store after the transaction has
// written it. It is lost when the process ends before.
func (s *Store) Rotate(ctx context.Context, r authn.Rotation) error {
	s.dropPending(ctx)
	r.Now = r.Now.Truncate(time.Microsecond) // as it is stored: a first use must not look later than itself
	reused := false
	_, noTx := s.db.Tx(ctx)
	err := s.db.InTx(ctx, func(ctx context.Context) error {
		reused = false
		if err := s.lock(ctx, r.Next.Subject.ID); err != nil {
			return err
		}
		// The update comes before the read: it holds the row, and on SQLite the writer. The order of these updates, not
		// the time of a caller, says which exchange is the first.
		first, err := s.db.Querier(ctx).Exec(ctx, "UPDATE "+s.tokens+
			" SET used_at = $2 WHERE hash = $1 AND used_at = 0 AND expires_at > $2", r.Old, record.Micros(r.Now))
		if err != nil {
			return err
		}
		old, err := s.Lookup(ctx, r.Old)
		if err != nil {
			return err
		}
		if !r.Now.Before(old.ExpiresAt) || old.Subject.ID != r.Next.Subject.ID {
			return authn.ErrRefresh
		}
		if r.Reused(first == 0, old.UsedAt) {
			reused = true // the removal is to be committed
			if noTx == nil {
				return s.dropForGood(ctx, old.Family)
			}
			return s.drop(ctx, "family", old.Family)
		}
		return s.Create(ctx, r.Next)
	})
	switch {
	case errors.Is(err, authn.ErrRefresh):
		return authn.ErrRefresh
	case err != nil:
		return fmt.Errorf("sqltokens: exchange a token: %w", err)
	case reused:
		return authn.ErrReused
	}
	return nil
}

// dropTimeout bounds the removal of a family outside the transaction of a caller.
const dropTimeout = time.Second

// dropForGood removes a family inside the transaction of a caller in such a way that it stays removed when that
// transaction is rolled back.
func (s *Store) dropForGood(ctx context.Context, family string) error {
	outside := func() error {
		ctx, cancel := context.WithTimeout(s.db.WithoutTx(context.WithoutCancel(ctx)), dropTimeout)
		defer cancel()
		return s.drop(ctx, "family", family)
	}
	seen := s.db.AfterRollback(ctx, func() {
		if err := outside(); err != nil {
			s.cfg.Logger.Error("sqltokens: the login of a reused refresh token could not be revoked after a rollback; "+
				"revoke it by hand", "family", family, "error", err)
		}
	})
	// The end of a transaction that the caller began is not seen. On PostgreSQL another connection removes the family now,
	// unless this transaction holds rows of it; on SQLite it is the one writer.
	if !seen && (s.db.Dialect() != sqldb.PostgreSQL || outside() != nil) {
		s.mu.Lock()
		s.pending = append(s.pending, family)
		s.mu.Unlock()
	}
	return s.drop(ctx, "family", family)
}

// dropPending removes the families that could not be removed while the transaction of a caller held them. While that is
// open it leaves them: no other call waits for it, since pending families count as revoked already.
func (s *Store) dropPending(ctx context.Context) {
	s.mu.Lock()
	families := slices.Clone(s.pending)
	s.mu.Unlock()
	if len(families) == 0 || !s.dropping.TryLock() {
		return
	}
	defer s.dropping.Unlock()
	if _, err := s.db.Tx(ctx); err == nil {
		return // it may be the transaction that is rolled back
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pendingTimeout)
	defer cancel()
	for _, family := range families {
		if gone, err := s.dropFree(ctx, family); err != nil || !gone {
			continue
		}
		s.mu.Lock()
		s.pending = slices.DeleteFunc(s.pending, func(f string) bool { return f == family })
		s.mu.Unlock()
	}
}

// pendingTimeout bounds the wait for SQLite's writer, which the transaction of the caller may still be.
const pendingTimeout = 100 * time.Millisecond

// dropFree removes the tokens of a family that no transaction holds, and reports whether none is left.
func (s *Store) dropFree(ctx context.Context, family string) (gone bool, err error) {
	free := "SELECT hash FROM " + s.tokens + " WHERE family = $1"
	if s.db.Dialect() == sqldb.PostgreSQL {
		free += " FOR UPDATE SKIP LOCKED"
	}
	if _, err := s.db.Querier(ctx).Exec(ctx, "DELETE FROM "+s.tokens+" WHERE hash IN ("+free+")", family); err != nil {
		return false, err
	}
	var left int64
	err = s.db.Querier(ctx).QueryRow(ctx, "SELECT count(*) FROM "+s.tokens+" WHERE family = $1", family).Scan(&left)
	return left == 0, err
}

// isPending reports whether a family is revoked and not removed yet.
func (s *Store) isPending(family string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.pending, family)
}

func (s *Store) drop(ctx context.Context, column, value string) error {
	_, err := s.db.Querier(ctx).Exec(ctx, "DELETE FROM "+s.tokens+" WHERE "+column+" = $1", value)
	return err
}

// RevokeFamily implements authn.TokenStore.
func (s *Store) RevokeFamily(ctx context.Context, family string) error {
	err := s.db.InTx(ctx, func(ctx context.Context) error {
		var subject string
		err := s.db.Querier(ctx).
			QueryRow(ctx, "SELECT subject FROM "+s.tokens+" WHERE family = $1 LIMIT 1", family).
			Scan(&subject)
		if errors.Is(err, sqldb.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := s.lock(ctx, subject); err != nil {
			return err
		}
		return s.drop(ctx, "family", family)
	})
	if err != nil {
		return fmt.Errorf("sqltokens: revoke a family: %w", err)
	}
	return nil
}

// RevokeSubject implements authn.TokenStore.
func (s *Store) RevokeSubject(ctx context.Context, subject string) error {
	err := s.db.InTx(ctx, func(ctx context.Context) error {
		if err := s.lock(ctx, subject); err != nil {
			return err
		}
		return s.drop(ctx, "subject", subject)
	})
	if err != nil {
		return fmt.Errorf("sqltokens: revoke a subject: %w", err)
	}
	return nil
}

// RevokeID implements authn.TokenStore.
func (s *Store) RevokeID(ctx context.Context, id string, until time.Time) error {
	_, err := s.db.Querier(ctx).Exec(ctx, "INSERT INTO "+s.revoked+
		" (id, expires_at) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET expires_at = CASE"+
		" WHEN excluded.expires_at > "+s.revoked+".expires_at THEN excluded.expires_at"+
		" ELSE "+s.revoked+".expires_at END", id, record.Micros(until))
	if err != nil {
		return fmt.Errorf("sqltokens: revoke an id: %w", err)
	}
	return nil
}

// Revoked implements authn.Revocations.
func (s *Store) Revoked(ctx context.Context, id string) (bool, error) {
	var one int64
	err := s.db.Querier(ctx).QueryRow(ctx, "SELECT 1 FROM "+s.revoked+" WHERE id = $1", id).Scan(&one)
	if errors.Is(err, sqldb.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("sqltokens: look for a revocation: %w", err)
	}
	return true, nil
}

// Purge implements authn.TokenStore.
func (s *Store) Purge(ctx context.Context, now time.Time) (int, error) {
	var total int64
	for _, table := range []string{s.tokens, s.revoked} {
		n, err := s.db.Querier(ctx).Exec(ctx, "DELETE FROM "+table+" WHERE expires_at <= $1", record.Micros(now))
		if err != nil {
			return int(total), fmt.Errorf("sqltokens: purge: %w", err)
		}
		total += n
	}
	return int(total), nil
}
