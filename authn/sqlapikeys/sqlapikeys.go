package sqlapikeys

import (
	"context"
	"embed"
	"errors"
	"fmt"
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
	// Prefix is the beginning of the name of the table. Default "sillar_".
	Prefix string
}

// Store is an authn.APIKeyStore. It is safe for concurrent use.
type Store struct {
	db            *sqldb.DB
	prefix, table string
}

var _ authn.APIKeyStore = (*Store)(nil)

// New returns the store in db.
func New(db *sqldb.DB, cfg Config) (*Store, error) {
	if db == nil {
		return nil, errors.New("sqlapikeys: a database is needed")
	}
	p, err := sqldb.Prefix(cfg.Prefix)
	if err != nil {
		return nil, fmt.Errorf("sqlapikeys: %w", err)
	}
	return &Store{db: db, prefix: p, table: p + "api_keys"}, nil
}

// Must returns s, or panics with err when it is not nil.
func Must(s *Store, err error) *Store {
	if err != nil {
		panic(err)
	}
	return s
}

// EnsureSchema creates the table that does not exist yet.
func (s *Store) EnsureSchema(ctx context.Context) error {
	return s.db.EnsureSchema(ctx, Migrations, s.prefix)
}

const columns = "id, subject, name, profile, hash, previous_hash, previous_until, created_at, rotated_at, expires_at"

// Create implements authn.APIKeyStore.
func (s *Store) Create(ctx context.Context, k authn.APIKey) error {
	profile, err := record.Profile(k.Subject)
	if err != nil {
		return fmt.Errorf("sqlapikeys: create: %w", err)
	}
	_, err = s.db.Querier(ctx).Exec(ctx,
		"INSERT INTO "+s.table+" ("+columns+") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
		k.ID, k.Subject.ID, k.Name, profile, k.Hash, k.PreviousHash,
		record.Micros(k.PreviousUntil), record.Micros(k.CreatedAt), record.Micros(k.RotatedAt), record.Micros(k.ExpiresAt))
	if err != nil {
		return fmt.Errorf("sqlapikeys: create: %w", err)
	}
	return nil
}

// scan reads a row of columns.
func scan(row sqldb.Row) (authn.APIKey, error) {
	var k authn.APIKey
	var subject, profile string
	var until, created, rotated, expires int64
	err := row.Scan(&k.ID, &subject, &k.Name, &profile, &k.Hash, &k.PreviousHash, &until, &created, &rotated, &expires)
	if err != nil {
		return authn.APIKey{}, err
	}
	if k.Subject, err = record.Subject(subject, profile); err != nil {
		return authn.APIKey{}, err
	}
	k.PreviousUntil, k.CreatedAt = record.Time(until), record.Time(created)
	k.RotatedAt, k.ExpiresAt = record.Time(rotated), record.Time(expires)
	return k, nil
}

// Lookup implements authn.APIKeyStore.
func (s *Store) Lookup(ctx context.Context, id string) (authn.APIKey, error) {
	k, err := scan(s.db.Querier(ctx).QueryRow(ctx, "SELECT "+columns+" FROM "+s.table+" WHERE id = $1", id))
	if errors.Is(err, sqldb.ErrNoRows) {
		return authn.APIKey{}, authn.ErrAPIKey
	}
	if err != nil {
		return authn.APIKey{}, fmt.Errorf("sqlapikeys: look up: %w", err)
	}
	return k, nil
}

// List implements authn.APIKeyStore.
func (s *Store) List(ctx context.Context, subject string) (list []authn.APIKey, err error) {
	rows, err := s.db.Querier(ctx).Query(ctx,
		"SELECT "+columns+" FROM "+s.table+" WHERE subject = $1 ORDER BY created_at, id", subject)
	if err != nil {
		return nil, fmt.Errorf("sqlapikeys: list: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		k, err := scan(rows)
		if err != nil {
			return nil, fmt.Errorf("sqlapikeys: list: %w", err)
		}
		list = append(list, k)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("sqlapikeys: list: %w", err)
	}
	return list, nil
}

// Rotate implements authn.APIKeyStore.
func (s *Store) Rotate(ctx context.Context, r authn.APIKeyRotation) error {
	n, err := s.db.Querier(ctx).Exec(ctx, "UPDATE "+s.table+" SET hash = $3, previous_hash = $2, previous_until = $4,"+
		" rotated_at = $5, expires_at = $6 WHERE id = $1 AND hash = $2",
		r.ID, r.Old, r.Next, record.Micros(r.PreviousUntil), record.Micros(r.Now), record.Micros(r.ExpiresAt))
	if err != nil {
		return fmt.Errorf("sqlapikeys: rotate: %w", err)
	}
	if n > 0 {
		return nil
	}
	if _, err := s.Lookup(ctx, r.ID); err != nil {
		return err
	}
	return authn.ErrKeyConflict
}

// Delete implements authn.APIKeyStore.
func (s *Store) Delete(ctx context.Context, id string) error {
	_, err := s.delete(ctx, "id = $1", id)
	return err
}

// DeleteSubject implements authn.APIKeyStore.
func (s *Store) DeleteSubject(ctx context.Context, subject string) error {
	_, err := s.delete(ctx, "subject = $1", subject)
	return err
}

// Purge implements authn.APIKeyStore.
func (s *Store) Purge(ctx context.Context, now time.Time) (int, error) {
	return s.delete(ctx, "expires_at > 0 AND expires_at <= $1", record.Micros(now))
}

func (s *Store) delete(ctx context.Context, where string, arg any) (int, error) {
	n, err := s.db.Querier(ctx).Exec(ctx, "DELETE FROM "+s.table+" WHERE "+where, arg)
	if err != nil {
		return 0, fmt.Errorf("sqlapikeys: delete: %w", err)
	}
	return int(n), nil
}
