package mongorepo_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/driver"
	"github.com/sillar-go/sillar/repository/mongorepo"
	"github.com/sillar-go/sillar/repository/repositorytest"
)

type widget = repositorytest.Widget

func open(t testing.TB) (*mongo.Database, *mongorepo.Repo[widget]) {
	t.Helper()
	db := testenv.MongoDatabase(t, testenv.Mongo(t))
	r, err := mongorepo.New[widget](t.Context(), db, mongorepo.Config{Collection: "widgets",
		Unique: repositorytest.Unique})
	if err != nil {
		t.Fatal(err)
	}
	return db, r
}

func TestConformance(t *testing.T) {
	repositorytest.Run(t, func(t testing.TB) repository.Repository[widget] {
		_, r := open(t)
		return r
	}, repositorytest.Features{Precision: time.Millisecond})
}

func TestMappingConformance(t *testing.T) {
	repositorytest.RunMapping(t, func(t testing.TB) repository.Repository[repositorytest.Mapped] {
		db, _ := open(t)
		r, err := mongorepo.New[repositorytest.Mapped](t.Context(), db, mongorepo.Config{Collection: "mapped"})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}, repositorytest.Features{Precision: time.Millisecond})
}

func TestViewConformance(t *testing.T) {
	repositorytest.RunView(t, func(t testing.TB) (repository.Repository[widget],
		repository.Reader[repositorytest.Label]) {
		db, r := open(t)
		v, err := mongorepo.New[repositorytest.Label](t.Context(), db, mongorepo.Config{Collection: "widgets"})
		if err != nil {
			t.Fatal(err)
		}
		return r, v
	}, repositorytest.Features{Precision: time.Millisecond})
}

// What a write's function collects is in the document, in order, and a delete keeps it in a tombstone.
func TestEffectsAreStoredWithTheirDocument(t *testing.T) {
	db, r := open(t)
	tell := func(topic string) repository.WriteHook[widget] {
		return func(ctx context.Context, w *widget) error {
			return driver.Collect(ctx, driver.Effect{ID: topic, Kind: "message", Topic: topic, Key: w.ID,
				Body: []byte(topic), CreatedAt: time.Now()})
		}
	}
	w, err := r.Create(t.Context(), widget{SKU: "a"}, tell("created"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Update(t.Context(), w.ID, tell("updated")); err != nil {
		t.Fatal(err)
	}
	boom := errors.New("boom")
	if _, err := r.Update(t.Context(), w.ID, func(ctx context.Context, w *widget) error {
		return errors.Join(tell("lost")(ctx, w), boom)
	}); !errors.Is(err, boom) {
		t.Fatal(err)
	}
	if err := r.Delete(t.Context(), w.ID, tell("deleted")); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Get(t.Context(), w.ID); !errors.Is(err, repository.ErrNotFound) {
		t.Fatalf("a tombstone is read as an entity: %v", err)
	}
	var doc struct {
		Effects []driver.Effect `bson:"_effects"`
		Deleted bool            `bson:"_deleted"`
		SKU     *string         `bson:"sku"`
	}
	if err := db.Collection("widgets").FindOne(t.Context(), bson.D{{Key: "_id", Value: w.ID}}).Decode(&doc); err != nil {
		t.Fatal(err)
	}
	var topics []string
	for _, e := range doc.Effects {
		topics = append(topics, e.Topic)
	}
	if got := strings.Join(topics, ","); got != "created,updated,deleted" || !doc.Deleted || doc.SKU != nil {
		t.Fatalf("effects %q, deleted %v, sku left: %v", got, doc.Deleted, doc.SKU != nil)
	}
	if err := driver.Collect(t.Context(), driver.Effect{}); !errors.Is(err, repository.ErrNoEffects) {
		t.Fatalf("Collect outside a write: %v", err)
	}
}

// Writers of several processes, who know nothing of each other's turns, lose no update.
func TestSeveralProcesses(t *testing.T) {
	db, r := open(t)
	w, err := r.Create(t.Context(), widget{SKU: "a"})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 3 {
		own := mongorepo.Must(mongorepo.New[widget](t.Context(), db, mongorepo.Config{Collection: "widgets"}))
		for range 5 {
			wg.Go(func() {
				for range 10 {
					if _, err := own.Update(t.Context(), w.ID, func(_ context.Context, x *widget) error {
						x.Price++
						return nil
					}); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	if w, err = r.Get(t.Context(), w.ID); err != nil || w.Price != 150 || w.Version != 151 {
		t.Errorf("after 150 increments the price is %d at version %d (%v)", w.Price, w.Version, err)
	}
}

// A function that changes another document takes no second turn: two functions that update each other's document do not
// wait for each other.
func TestCrossedUpdatesDoNotDeadlock(t *testing.T) {
	db, r := open(t)
	other := mongorepo.Must(mongorepo.New[widget](t.Context(), db, mongorepo.Config{Collection: "widgets"}))
	a, err1 := r.Create(t.Context(), widget{SKU: "a"})
	b, err2 := r.Create(t.Context(), widget{SKU: "b"})
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	add := func(_ context.Context, x *widget) error { x.Price++; return nil }
	var both, wg sync.WaitGroup
	both.Add(2)
	for _, docs := range [][2]string{{a.ID, b.ID}, {b.ID, a.ID}} {
		wg.Go(func() {
			runs := 0
			_, err := r.Update(ctx, docs[0], func(ctx context.Context, _ *widget) error {
				switch runs++; runs {
				case 1: // another process is faster, so that this one takes a turn
					_, err := other.Update(t.Context(), docs[0], add)
					return err
				case 2:
					both.Done()
					both.Wait()
					_, err := r.Update(ctx, docs[1], add)
					return err
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// A violated index is named, whatever the values look like that the server quotes.
func TestViolatedIndex(t *testing.T) {
	_, r := open(t)
	w := widget{SKU: " index: other_key dup key: Index '_id_'"}
	if _, err := r.Create(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	_, err := r.Create(t.Context(), w)
	var unique *repository.UniqueError
	if !errors.As(err, &unique) || strings.Join(unique.Fields, ",") != "sku" {
		t.Errorf("%v", err)
	}
}

// A prefix may hold what ends a pattern, and what means something in one.
func TestPrefixesAreEscaped(t *testing.T) {
	_, r := open(t)
	for _, name := range []string{"a\x00b", "a\x00c", "a.b", "ab"} {
		if _, err := r.Create(t.Context(), widget{SKU: name, Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	for prefix, want := range map[string]int64{"a\x00": 2, "a\x00b": 1, "a.": 1, "a": 4} {
		n, err := r.Count(t.Context(), repository.Text(func(w *widget) *string { return &w.Name }).HasPrefix(prefix))
		if err != nil || n != want {
			t.Errorf("%q: %d, want %d (%v)", prefix, n, want, err)
		}
	}
}
