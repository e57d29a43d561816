package mongotokens

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/sillar-go/sillar/authn/internal/record"
)

// RevokeFamily implements authn.TokenStore.
func (s *Store) RevokeFamily(ctx context.Context, id string) error {
	ctx = alone(ctx)
	// DeleteMany, because FerretDB's DeleteOne passes over a document that an exchange is just replacing.
	_, err := s.families.DeleteMany(ctx, bson.D{{Key: "_id", Value: id}})
	if err == nil {
		err = s.forget(ctx, "family", id)
	}
	if err != nil {
		return fmt.Errorf("mongotokens: revoke a family: %w", err)
	}
	return nil
}

// RevokeSubject implements authn.TokenStore.
func (s *Store) RevokeSubject(ctx context.Context, subject string) error {
	ctx = alone(ctx)
	_, err := s.families.DeleteMany(ctx, bson.D{{Key: "subject", Value: subject}})
	if err == nil {
		err = s.forget(ctx, "subject", subject)
	}
	if err != nil {
		return fmt.Errorf("mongotokens: revoke a subject: %w", err)
	}
	return nil
}

// RevokeID implements authn.TokenStore.
func (s *Store) RevokeID(ctx context.Context, id string, until time.Time) error {
	ctx = alone(ctx)
	change := bson.D{{Key: "$max", Value: bson.D{{Key: "expires", Value: record.Micros(until)}}}}
	for {
		_, err := s.revoked.UpdateOne(ctx, bson.D{{Key: "_id", Value: id}}, change, options.UpdateOne().SetUpsert(true))
		if mongo.IsDuplicateKeyError(err) { // two upserts at once: the next try finds the document
			continue
		}
		if err != nil {
			return fmt.Errorf("mongotokens: revoke an id: %w", err)
		}
		return nil
	}
}

// Revoked implements authn.Revocations.
func (s *Store) Revoked(ctx context.Context, id string) (bool, error) {
	ctx = alone(ctx)
	err := s.revoked.FindOne(ctx, bson.D{{Key: "_id", Value: id}}).Err()
	if errors.Is(err, mongo.ErrNoDocuments) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("mongotokens: look for a revocation: %w", err)
	}
	return true, nil
}

// Purge implements authn.TokenStore. A login that is changed at the same time is left for the next call.
func (s *Store) Purge(ctx context.Context, now time.Time) (int, error) {
	ctx = alone(ctx)
	at := record.Micros(now)
	total, err := s.purgeFamilies(ctx, at)
	if err != nil {
		return total, fmt.Errorf("mongotokens: purge: %w", err)
	}
	for _, c := range []*mongo.Collection{s.used, s.revoked} {
		res, err := c.DeleteMany(ctx, bson.D{{Key: "expires", Value: bson.D{{Key: "$lte", Value: at}}}})
		if err != nil {
			return total, fmt.Errorf("mongotokens: purge: %w", err)
		}
		total += int(res.DeletedCount)
	}
	return total, nil
}

func (s *Store) purgeFamilies(ctx context.Context, at int64) (total int, err error) {
	found, err := s.families.Find(ctx, bson.D{{Key: "grants.expires", Value: bson.D{{Key: "$lte", Value: at}}}})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, found.Close(context.WithoutCancel(ctx))) }()
	for found.Next(ctx) {
		var f family
		if err := found.Decode(&f); err != nil {
			return total, err
		}
		keep := slices.DeleteFunc(slices.Clone(f.Grants), func(g grant) bool { return g.Expires <= at })
		changed, err := s.write(ctx, f, keep)
		if err != nil {
			return total, err
		}
		if changed {
			total += len(f.Grants) - len(keep)
		}
	}
	return total, found.Err()
}
