package mongorepo

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/driver"
	"github.com/sillar-go/sillar/repository/internal/mongoerror"
)

// Fields of a document that are not the entity's.
const (
	// EffectsField holds what has yet to be published, as an array of driver.Effect.
	EffectsField = "_effects"
	// DeletedField marks a tombstone.
	DeletedField = "_deleted"
)

// Config tunes a Repo.
type Config struct {
	// Collection is the name of the collection. Required; letters, digits, _ and -.
	Collection string
	// Unique lists the sets of columns whose values no two entities share; New makes the indexes. Tombstones are
	// exempt. NULL counts as a value.
	Unique [][]string
	// ObjectIDs says that the ids of the collection are ObjectIDs, as other programs make them. The entity's id is their
	// 24 hexadecimal digits, and Create makes one. Default: ids are text, UUIDv7 where Create makes them.
	ObjectIDs bool
	// MaxAttempts bounds how often Update reads afresh when others change the same document. 0 means 200: with
	// backoff, some seconds under the heaviest contention.
	MaxAttempts int
}

// Repo is a repository.Repository over a collection. It is safe for concurrent use.
type Repo[E any] struct {
	c      *mongo.Collection // writes go to the majority
	latest *mongo.Collection // the same, read where it is written: another node may not know yet
	cfg    Config
	m      *driver.Mapping
	life   driver.Lifecycle[E]
	unique map[string][]string // by the index's name
	turns  turns
}

var _ repository.Repository[repository.Meta] = (*Repo[repository.Meta])(nil)

var validName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,119}$`)

// New returns a Repo and makes the indexes it needs.
func New[E any](ctx context.Context, db *mongo.Database, cfg Config) (*Repo[E], error) {
	if db == nil {
		return nil, errors.New("mongorepo: New needs a database")
	}
	if !validName.MatchString(cfg.Collection) {
		return nil, fmt.Errorf("mongorepo: collection name %q does not match %s", cfg.Collection, validName)
	}
	m, err := driver.MappingOf[E]()
	if err != nil {
		return nil, err
	}
	if cfg.MaxAttempts <= 0 {
		cfg.MaxAttempts = 200
	}
	safe := options.Collection().SetWriteConcern(writeconcern.Majority())
	r := &Repo[E]{c: db.Collection(cfg.Collection, safe), latest: db.Collection(cfg.Collection, safe,
		options.Collection().SetReadPreference(readpref.Primary())), cfg: cfg, m: m,
		life: driver.NewLifecycle[E](m, time.Millisecond), unique: map[string][]string{}, turns: newTurns()}
	var indexes []mongo.IndexModel
	for _, set := range cfg.Unique {
		var keys bson.D
		for _, c := range set {
			if _, ok := m.Column(c); !ok {
				return nil, &repository.FieldError{Field: c, Reason: "is unknown"}
			}
			keys = append(keys, bson.E{Key: c, Value: 1})
		}
		name := strings.Join(set, "_") + "_key"
		r.unique[name] = set
		indexes = append(indexes, mongo.IndexModel{Keys: keys, Options: options.Index().SetName(name).SetUnique(true).
			// tombstones have no fields
			SetPartialFilterExpression(bson.D{{Key: set[0], Value: bson.D{{Key: "$exists", Value: true}}}})})
	}
	if len(indexes) > 0 {
		if _, err := r.c.Indexes().CreateMany(ctx, indexes); err != nil {
			return nil, fmt.Errorf("mongorepo: make indexes of %s: %w", cfg.Collection, err)
		}
	}
	return r, nil
}

// Must returns r or panics with err.
func Must[E any](r *Repo[E], err error) *Repo[E] {
	if err != nil {
		panic(err)
	}
	return r
}

// fail says what was being done, and gives a violated index its type.
func (r *Repo[E]) fail(doing string, err error) error {
	if err == nil {
		return nil
	}
	if mongo.IsDuplicateKeyError(err) {
		name := mongoerror.Index(err)
		u := &repository.UniqueError{Constraint: name, Fields: r.unique[name], Err: err}
		if name == "_id_" {
			u.Fields = []string{r.m.Columns[r.m.ID].Name}
		}
		err = u
	}
	return fmt.Errorf("mongorepo: %s %s: %w", doing, r.cfg.Collection, err)
}

func (r *Repo[E]) missing(doing, id string) error {
	return fmt.Errorf("mongorepo: %s %s %q: %w", doing, r.cfg.Collection, id[:min(len(id), 64)], repository.ErrNotFound)
}

// live selects what is no tombstone.
func live(more ...bson.E) bson.D {
	return append(bson.D{{Key: DeletedField, Value: bson.D{{Key: "$exists", Value: false}}}}, more...)
}

func run[E any](ctx context.Context, collection string, e *E,
	then []repository.WriteHook[E]) ([]driver.Effect, error) {
	ctx, collected := driver.WithEffects(ctx, collection)
	for _, fn := range then {
		if err := fn(ctx, e); err != nil {
			return nil, err
		}
	}
	return collected.Collected(), nil
}

// Create implements repository.Repository.
func (r *Repo[E]) Create(ctx context.Context, e E, then ...repository.WriteHook[E]) (E, error) {
	var zero E
	if len(then) > 0 { // they change a copy, not what the caller holds
		var err error
		if e, err = r.life.Clone(&e); err != nil {
			return zero, err
		}
	}
	if r.cfg.ObjectIDs {
		r.life.Identify(&e, bson.NewObjectID().Hex())
	}
	r.life.Init(&e)
	effects, err := run(ctx, r.cfg.Collection, &e, then)
	if err != nil {
		return zero, err
	}
	doc, err := r.document(&e)
	if err != nil {
		return zero, err
	}
	if len(effects) > 0 {
		doc = append(doc, bson.E{Key: EffectsField, Value: effects})
	}
	if _, err := r.c.InsertOne(ctx, doc); err != nil {
		return zero, r.fail("create in", err)
	}
	return e, nil
}

// Update implements repository.Repository.
func (r *Repo[E]) Update(ctx context.Context, id string, change repository.WriteHook[E]) (E, error) {
	var zero E
	e, err := again(ctx, r, id, func(ctx context.Context) (E, error) {
		before, raw, err := r.whole(ctx, r.latest, "update in", id)
		if err != nil {
			return zero, err
		}
		e, err := r.life.Clone(&before)
		if err != nil {
			return zero, err
		}
		effects, err := run(ctx, r.cfg.Collection, &e, []repository.WriteHook[E]{change})
		if err != nil {
			return zero, err
		}
		r.life.Touch(&e, &before)
		return e, r.store(ctx, "update in", &e, &before, raw, effects)
	})
	if err != nil {
		return zero, err
	}
	return e, nil
}

// staleError distinguishes a conflict of compare-and-set from one that the caller's function returned.
type staleError struct{ error }

func (e *staleError) Unwrap() error { return e.error }

// store writes what changed between before and e, if the document still has the version of before.
func (r *Repo[E]) store(
	ctx context.Context, doing string, e, before *E, raw bson.Raw, effects []driver.Effect,
) error {
	set, err := r.changes(e, before, raw)
	if err != nil {
		return err
	}
	id, expected := r.life.ID(e), r.life.Version(before)
	change := bson.D{{Key: "$set", Value: set}}
	if len(effects) > 0 {
		change = append(change, push(effects))
	}
	res, err := r.c.UpdateOne(ctx, r.held(id, expected), change)
	if err != nil {
		return r.fail(doing, err)
	}
	if res.MatchedCount == 1 {
		return nil
	}
	now, err := r.one(ctx, r.latest, doing, id)
	if err != nil {
		return err
	}
	return &staleError{r.fail(doing, &repository.ConflictError{ID: id, Expected: expected, Actual: r.life.Version(&now)})}
}

func push(effects []driver.Effect) bson.E {
	return bson.E{Key: "$push", Value: bson.D{{Key: EffectsField, Value: bson.D{{Key: "$each", Value: effects}}}}}
}

// Replace implements repository.Repository.
func (r *Repo[E]) Replace(ctx context.Context, e E) (E, error) {
	var zero E
	stored, raw, err := r.whole(ctx, r.latest, "replace in", r.life.ID(&e))
	if err != nil {
		return zero, err
	}
	held := r.life.Version(&e)
	if actual := r.life.Version(&stored); held != actual {
		return zero, r.fail("replace in", &repository.ConflictError{ID: r.life.ID(&e), Expected: held, Actual: actual})
	}
	r.life.Touch(&e, &stored)
	if err := r.store(ctx, "replace in", &e, &stored, raw, nil); err != nil {
		return zero, err
	}
	return e, nil
}

// Delete implements repository.Repository.
func (r *Repo[E]) Delete(ctx context.Context, id string, then ...repository.WriteHook[E]) error {
	if len(then) == 0 {
		key, ok := r.id(id)
		if !ok {
			return r.missing("delete from", id)
		}
		res, err := r.c.DeleteOne(ctx, live(bson.E{Key: "_id", Value: key}, bson.E{Key: EffectsField + ".0",
			Value: bson.D{{Key: "$exists", Value: false}}}))
		if err != nil {
			return r.fail("delete from", err)
		}
		if res.DeletedCount == 1 {
			return nil
		}
		// Not there, or with effects of earlier writes that have yet to be published.
	}
	_, err := again(ctx, r, id, func(ctx context.Context) (struct{}, error) { return struct{}{}, r.bury(ctx, id, then) })
	return err
}

// bury removes the document, or makes a tombstone of it while there are effects to be published.
func (r *Repo[E]) bury(ctx context.Context, id string, then []repository.WriteHook[E]) error {
	e, err := r.one(ctx, r.latest, "delete from", id)
	if err != nil {
		return err
	}
	effects, err := run(ctx, r.cfg.Collection, &e, then)
	if err != nil {
		return err
	}
	held := r.held(id, r.life.Version(&e))
	var done int64
	if len(effects) == 0 {
		res, err := r.c.DeleteOne(ctx, append(held, bson.E{Key: EffectsField + ".0",
			Value: bson.D{{Key: "$exists", Value: false}}}))
		if err != nil {
			return r.fail("delete from", err)
		}
		done = res.DeletedCount
	}
	if done == 0 {
		change := r.tombstone()
		if len(effects) > 0 {
			change = append(change, push(effects))
		}
		res, err := r.c.UpdateOne(ctx, held, change)
		if err != nil {
			return r.fail("delete from", err)
		}
		done = res.MatchedCount
	}
	if done == 0 {
		return &staleError{fmt.Errorf("mongorepo: delete from %s: %w", r.cfg.Collection, repository.ErrConflict)}
	}
	return nil
}
