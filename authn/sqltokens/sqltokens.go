package sqltokens

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/repository/sqldb"
)

// Migrations are the tables, for package migrate and sqldb.SchemaSQL.
//
//go:embed migrations
var Migrations embed.FS

// Config tunes a Store. The zero Config is useful.
type Config struct {
	// Prefix begins the tables' names. Default "sillar_".
	Prefix string
}

// Store is an authn.TokenStore.
type Store struct {
	db              *sqldb.DB
	prefix          string
	grants, revoked string // table names
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
	return &Store{db: db, prefix: p, grants: p + "refresh_tokens", revoked: p + "revoked_tokens"}, nil
}

// Must returns s or panics with err.
func Must(s *Store, err error) *Store {
	if err != nil {
		panic(err)
	}
	return s
}

// EnsureSchema makes the tables where they do not exist yet.
func (s *Store) EnsureSchema(ctx context.Context) error {
	return s.db.EnsureSchema(ctx, Migrations, s.prefix)
}

// profile is what a grant keeps of its subject beside the id.
type profile struct {
	Roles  []string       `json:"roles,omitempty"`
	Claims map[string]any `json:"claims,omitempty"`
}

func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicros(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMicro(n).UTC()
}

// Create implements authn.TokenStore.
func (s *Store) Create(ctx context.Context, x authn.Grant) error {
	p, err := json.Marshal(profile{x.Subject.Roles, x.Subject.Claims})
	if err != nil {
		return fmt.Errorf("sqltokens: the subject's claims: %w", err)
	}
	_, err = s.db.Querier(ctx).Exec(ctx, "INSERT INTO "+s.grants+
		" (hash, family, subject, profile, created_at, expires_at, family_ends_at, used_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
		x.Hash, x.Family, x.Subject.ID, string(p), micros(x.CreatedAt), micros(x.ExpiresAt), micros(x.FamilyEndsAt), micros(x.UsedAt))
	if err != nil {
		return fmt.Errorf("sqltokens: add a grant: %w", err)
	}
	return nil
}

// Lookup implements authn.TokenStore.
func (s *Store) Lookup(ctx context.Context, hash string) (authn.Grant, error) {
	x := authn.Grant{Hash: hash}
	var text string
	var created, expires, ends, used int64
	err := s.db.Querier(ctx).QueryRow(ctx, "SELECT family, subject, profile, created_at, expires_at, family_ends_at, used_at FROM "+
		s.grants+" WHERE hash = $1", hash).Scan(&x.Family, &x.Subject.ID, &text, &created, &expires, &ends, &used)
	if errors.Is(err, sqldb.ErrNoRows) {
		return authn.Grant{}, authn.ErrRefresh
	}
	if err != nil {
		return authn.Grant{}, fmt.Errorf("sqltokens: read a grant: %w", err)
	}
	var p profile
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return authn.Grant{}, fmt.Errorf("sqltokens: read a grant's profile: %w", err)
	}
	x.Subject.Roles, x.Subject.Claims = p.Roles, p.Claims
	x.CreatedAt, x.ExpiresAt, x.FamilyEndsAt, x.UsedAt = fromMicros(created), fromMicros(expires), fromMicros(ends), fromMicros(used)
	return x, nil
}

// lock makes exchanges and revocations of one subject take turns until the transaction ends. SQLite has one writer.
func (s *Store) lock(ctx context.Context, subject string) error {
	if s.db.Dialect() != sqldb.PostgreSQL {
		return nil
	}
	_, err := s.db.Querier(ctx).Exec(ctx, "SELECT pg_advisory_xact_lock(hashtextextended($1, 7310582))", s.prefix+subject)
	return err
}

// Rotate implements authn.TokenStore.
func (s *Store) Rotate(ctx context.Context, r authn.Rotation) error {
	r.Now = r.Now.Truncate(time.Microsecond) // as it is stored: a first use must not look later than itself
	reused := false
	err := s.db.InTx(ctx, func(ctx context.Context) error {
		reused = false
		if err := s.lock(ctx, r.Next.Subject.ID); err != nil {
			return err
		}
		// The update comes before the look: it holds the row, and on SQLite the writer.
		_, err := s.db.Querier(ctx).Exec(ctx, "UPDATE "+s.grants+" SET used_at = $2 WHERE hash = $1 AND used_at = 0 AND expires_at > $2", r.Old, micros(r.Now))
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
		if r.Now.Sub(old.UsedAt) > r.Grace {
			reused = true // the removal is to be committed
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

func (s *Store) drop(ctx context.Context, column, value string) error {
	_, err := s.db.Querier(ctx).Exec(ctx, "DELETE FROM "+s.grants+" WHERE "+column+" = $1", value)
	return err
}

// RevokeFamily implements authn.TokenStore.
func (s *Store) RevokeFamily(ctx context.Context, family string) error {
	err := s.db.InTx(ctx, func(ctx context.Context) error {
		var subject string
		err := s.db.Querier(ctx).QueryRow(ctx, "SELECT subject FROM "+s.grants+" WHERE family = $1 LIMIT 1", family).Scan(&subject)
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
	_, err := s.db.Querier(ctx).Exec(ctx, "INSERT INTO "+s.revoked+" (id, expires_at) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET expires_at = "+
		"CASE WHEN excluded.expires_at > "+s.revoked+".expires_at THEN excluded.expires_at ELSE "+s.revoked+".expires_at END", id, micros(until))
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
	for _, table := range []string{s.grants, s.revoked} {
		n, err := s.db.Querier(ctx).Exec(ctx, "DELETE FROM "+table+" WHERE expires_at <= $1", micros(now))
		if err != nil {
			return int(total), fmt.Errorf("sqltokens: purge: %w", err)
		}
		total += n
	}
	return int(total), nil
}
