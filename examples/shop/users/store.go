package users

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/authn/mongokeys"
	"github.com/sillar-go/sillar/authn/mongotokens"
	"github.com/sillar-go/sillar/authn/sqlkeys"
	"github.com/sillar-go/sillar/authn/sqltokens"
	"github.com/sillar-go/sillar/examples/shop/internal/platform"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/outbox/mongooutbox"
	"github.com/sillar-go/sillar/repository/mongorepo"
	"github.com/sillar-go/sillar/repository/sqldb"
)

// stores are the adapters that the DSN chose.
type stores struct {
	users  Repository
	outbox messaging.Publisher
	tokens authn.TokenStore
	keys   authn.KeyStore
}

var unique = [][]string{{"username"}, {"email"}}

func open(ctx context.Context, s *platform.Service) (*stores, error) {
	out := &stores{keys: authn.NewMemoryKeys()}
	if s.Data != "" {
		out.keys = authn.NewFileKeys(filepath.Join(s.Data, "users-keys.json"))
	}
	if s.OnMongo() {
		return out, out.openMongo(ctx, s)
	}
	return out, out.openSQL(ctx, s)
}

func (o *stores) openSQL(ctx context.Context, s *platform.Service) error {
	db, err := s.OpenSQL(ctx)
	if err != nil {
		return err
	}
	box, err := s.Outbox(ctx, db)
	if err != nil {
		return err
	}
	tokens, err := sqltokens.New(db, sqltokens.Config{})
	if err != nil {
		return err
	}
	if err := tokens.EnsureSchema(ctx); err != nil {
		return err
	}
	if err := o.openKeys(ctx, s, db); err != nil {
		return err
	}
	o.outbox, o.tokens = box, tokens
	o.users, err = platform.Repo[User](ctx, db, "users", unique...)
	return err
}

// openKeys opens the keys that replicas share, where there is a secret to encrypt them.
func (o *stores) openKeys(ctx context.Context, s *platform.Service, db *sqldb.DB) error {
	if len(s.KeysSecret) == 0 {
		return nil
	}
	keys, err := sqlkeys.New(db, sqlkeys.Config{Secret: s.KeysSecret})
	if err != nil {
		return err
	}
	o.keys = keys
	return keys.EnsureSchema(ctx)
}

func (o *stores) openMongo(ctx context.Context, s *platform.Service) error {
	db, err := s.OpenMongo(ctx)
	if err != nil {
		return err
	}
	repo, err1 := mongorepo.New[User](ctx, db, mongorepo.Config{Collection: "users", Unique: unique})
	box, err2 := mongooutbox.New(db, mongooutbox.Config{Source: s.Name, Collections: []string{"users"},
		Propagator: s.Tel.Propagator})
	tokens, err3 := mongotokens.New(db, mongotokens.Config{})
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	if err := errors.Join(box.EnsureIndexes(ctx), tokens.EnsureIndexes(ctx)); err != nil {
		return err
	}
	if len(s.KeysSecret) > 0 {
		if o.keys, err = mongokeys.New(db, mongokeys.Config{Secret: s.KeysSecret}); err != nil {
			return err
		}
	}
	o.users, o.outbox, o.tokens = repo, box, tokens
	return s.Relay(box)
}
