package mongotokens

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/authn/internal/record"
)

// Config tunes a Store. The zero Config is useful.
type Config struct {
	// Prefix is the beginning of the names of the collections. Default "sillar_".
	Prefix string
}

// Store is an authn.TokenStore. It is safe for concurrent use.
type Store struct {
	families *mongo.Collection // one document a login
	used     *mongo.Collection // tokens that were used longer ago than the grace
	revoked  *mongo.Collection
}

var _ authn.TokenStore = (*Store)(nil)

// New returns the store in db.
func New(db *mongo.Database, cfg Config) (*Store, error) {
	if db == nil {
		return nil, errors.New("mongotokens: a database is needed")
	}
	if cfg.Prefix == "" {
		cfg.Prefix = "sillar_"
	}
	safe := options.Collection().SetWriteConcern(writeconcern.Majority()).SetReadPreference(readpref.Primary())
	c := func(name string) *mongo.Collection { return db.Collection(cfg.Prefix+name, safe) }
	return &Store{c("refresh_tokens"), c("used_tokens"), c("revoked_tokens")}, nil
}

// Must returns s or panics with err.
func Must(s *Store, err error) *Store {
	if err != nil {
		panic(err)
	}
	return s
}

// EnsureIndexes makes the indexes where they do not exist yet. Without them everything works, slowly.
func (s *Store) EnsureIndexes(ctx context.Context) error {
	for _, i := range []struct {
		c    *mongo.Collection
		keys []string
	}{
		{s.families, []string{"grants.hash", "grants.expires", "subject"}},
		{s.used, []string{"expires", "family", "subject"}},
		{s.revoked, []string{"expires"}},
	} {
		var models []mongo.IndexModel
		for _, k := range i.keys {
			models = append(models, mongo.IndexModel{Keys: bson.D{{Key: k, Value: 1}}})
		}
		if _, err := i.c.Indexes().CreateMany(ctx, models); err != nil {
			return fmt.Errorf("mongotokens: make the indexes of %s: %w", i.c.Name(), err)
		}
	}
	return nil
}

// family is a login. Rev counts its writes.
type family struct {
	ID      string  `bson:"_id"`
	Subject string  `bson:"subject"`
	Rev     int64   `bson:"rev"`
	Grants  []grant `bson:"grants"`
}

// grant is a token. Times are microseconds since 1970, 0 for none.
type grant struct {
	Hash    string `bson:"hash"`
	Profile string `bson:"profile"`
	Created int64  `bson:"created"`
	Expires int64  `bson:"expires"`
	Ends    int64  `bson:"ends"`
	Used    int64  `bson:"used"`
}

// old is a token that was used long ago.
type old struct {
	Hash         string `bson:"_id"`
	Family       string `bson:"family"`
	Subject      string `bson:"subject"`
	Expires      int64  `bson:"expires"`
	RefreshToken grant  `bson:"grant"`
}

func encode(x authn.RefreshToken) (grant, error) {
	profile, err := record.Profile(x.Subject)
	if err != nil {
		return grant{}, fmt.Errorf("mongotokens: add a grant: %w", err)
	}
	return grant{
		x.Hash,
		profile,
		record.Micros(x.CreatedAt),
		record.Micros(x.ExpiresAt),
		record.Micros(x.FamilyEndsAt),
		record.Micros(x.UsedAt),
	}, nil
}

func (g grant) decode(family, subject string) (authn.RefreshToken, error) {
	s, err := record.Subject(subject, g.Profile)
	if err != nil {
		return authn.RefreshToken{}, fmt.Errorf("mongotokens: read a token: %w", err)
	}
	return authn.RefreshToken{
		Hash:         g.Hash,
		Family:       family,
		Subject:      s,
		CreatedAt:    record.Time(g.Created),
		ExpiresAt:    record.Time(g.Expires),
		FamilyEndsAt: record.Time(g.Ends),
		UsedAt:       record.Time(g.Used),
	}, nil
}

// alone returns a context that carries no session, and so no transaction.
func alone(ctx context.Context) context.Context { return mongo.NewSessionContext(ctx, nil) }

// Create implements authn.TokenStore.
func (s *Store) Create(ctx context.Context, x authn.RefreshToken) error {
	ctx = alone(ctx)
	g, err := encode(x)
	if err != nil {
		return err
	}
	_, err = s.families.UpdateOne(
		ctx,
		bson.D{{Key: "_id", Value: x.Family}, {Key: "grants.hash", Value: bson.D{{Key: "$ne", Value: x.Hash}}}},
		bson.D{
			{Key: "$setOnInsert", Value: bson.D{{Key: "subject", Value: x.Subject.ID}}},
			{Key: "$push", Value: bson.D{{Key: "grants", Value: g}}},
			{Key: "$inc", Value: bson.D{{Key: "rev", Value: int64(1)}}},
		},
		options.UpdateOne().SetUpsert(true),
	)
	if mongo.IsDuplicateKeyError(err) {
		return errors.New("mongotokens: this refresh token exists")
	}
	if err != nil {
		return fmt.Errorf("mongotokens: add a grant: %w", err)
	}
	return nil
}

// find returns the login that a hash belongs to, and the place of its grant: -1 for one that was used long ago.
func (s *Store) find(ctx context.Context, hash string) (f family, at int, g grant, err error) {
	err = s.families.FindOne(ctx, bson.D{{Key: "grants.hash", Value: hash}}).Decode(&f)
	if err == nil {
		at = slices.IndexFunc(f.Grants, func(g grant) bool { return g.Hash == hash })
		return f, at, f.Grants[at], nil
	}
	if !errors.Is(err, mongo.ErrNoDocuments) {
		return f, 0, g, fmt.Errorf("mongotokens: read a grant: %w", err)
	}
	var o old
	err = s.used.FindOne(ctx, bson.D{{Key: "_id", Value: hash}}).Decode(&o)
	if err == nil { // it counts as long as its login lives
		err = s.families.FindOne(ctx, bson.D{{Key: "_id", Value: o.Family}}).Decode(&f)
	}
	if errors.Is(err, mongo.ErrNoDocuments) {
		return f, 0, g, authn.ErrRefresh
	}
	if err != nil {
		return f, 0, g, fmt.Errorf("mongotokens: read a grant: %w", err)
	}
	return f, -1, o.RefreshToken, nil
}

// Lookup implements authn.TokenStore.
func (s *Store) Lookup(ctx context.Context, hash string) (authn.RefreshToken, error) {
	ctx = alone(ctx)
	f, _, g, err := s.find(ctx, hash)
	if err != nil {
		return authn.RefreshToken{}, err
	}
	return g.decode(f.ID, f.Subject)
}

// Rotate implements authn.TokenStore.
func (s *Store) Rotate(ctx context.Context, r authn.Rotation) error {
	ctx = alone(ctx)
	next, err := encode(r.Next)
	if err != nil {
		return err
	}
	now := record.Micros(r.Now)
	for {
		f, at, g, err := s.find(ctx, r.Old)
		if err != nil {
			return err
		}
		if g.Expires <= now || f.Subject != r.Next.Subject.ID {
			return authn.ErrRefresh
		}
		var changed bool
		if at < 0 || r.Reused(g.Used != 0, record.Time(g.Used)) {
			if changed, err = s.write(ctx, f, nil); err == nil && changed {
				return authn.ErrReused
			}
		} else {
			var keep []grant
			if keep, err = s.tidy(ctx, f, r.Old, now, r.Grace); err == nil {
				changed, err = s.write(ctx, f, append(keep, next))
			}
		}
		if err != nil {
			return fmt.Errorf("mongotokens: exchange a token: %w", err)
		}
		if changed {
			return nil
		}
	}
}

// tidy returns the grants of f that stay: the first use of hash is noted, what has expired is left out, and so is, once
// it is in the other collection, what was used longer ago than the grace.
func (s *Store) tidy(
	ctx context.Context,
	f family,
	hash string,
	now int64,
	grace time.Duration,
) (keep []grant, err error) {
	for _, g := range f.Grants {
		if g.Hash == hash && g.Used == 0 {
			g.Used = now
		}
		switch {
		case g.Expires <= now:
		case g.Used != 0 && (grace <= 0 || now-g.Used > grace.Microseconds()):
			_, err := s.used.ReplaceOne(
				ctx, bson.D{{Key: "_id", Value: g.Hash}}, old{g.Hash, f.ID, f.Subject, g.Expires, g},
				options.Replace().SetUpsert(true),
			)
			if err != nil && !mongo.IsDuplicateKeyError(err) { // another exchange has just written the same
				return nil, err
			}
		default:
			keep = append(keep, g)
		}
	}
	return keep, nil
}

// write gives the login other grants, or deletes it where there are none. It reports false when another
// process has changed it meanwhile.
func (s *Store) write(ctx context.Context, f family, grants []grant) (changed bool, err error) {
	as := bson.D{{Key: "_id", Value: f.ID}, {Key: "rev", Value: f.Rev}}
	if len(grants) == 0 {
		res, err := s.families.DeleteOne(ctx, as)
		if err != nil || res.DeletedCount == 0 {
			return false, err
		}
		return true, s.forget(ctx, "family", f.ID)
	}
	f.Rev++
	f.Grants = grants
	res, err := s.families.ReplaceOne(ctx, as, f)
	if err != nil {
		return false, err
	}
	return res.MatchedCount > 0, nil
}

// forget deletes old tokens, which mean nothing without their login.
func (s *Store) forget(ctx context.Context, field, value string) error {
	_, err := s.used.DeleteMany(ctx, bson.D{{Key: field, Value: value}})
	return err
}

// Sessions implements authn.TokenStore.
func (s *Store) Sessions(ctx context.Context, subject string, now time.Time) ([]authn.RefreshToken, error) {
	ctx = alone(ctx)
	found, err := s.families.Find(ctx, bson.D{{Key: "subject", Value: subject}})
	if err != nil {
		return nil, fmt.Errorf("mongotokens: list the sessions: %w", err)
	}
	var families []family
	if err := found.All(ctx, &families); err != nil {
		return nil, fmt.Errorf("mongotokens: list the sessions: %w", err)
	}
	var list []authn.RefreshToken
	for _, f := range families {
		f.Grants = slices.DeleteFunc(f.Grants, func(g grant) bool { return g.Expires <= record.Micros(now) })
		if len(f.Grants) == 0 {
			continue
		}
		newest := slices.MaxFunc(f.Grants, func(a, b grant) int { return cmp.Compare(a.Created, b.Created) })
		x, err := newest.decode(f.ID, f.Subject)
		if err != nil {
			return nil, err
		}
		list = append(list, x)
	}
	return list, nil
}
