package mongoinbox_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.uber.org/goleak"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/messaging/inbox/mongoinbox"
	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/mongorepo"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type stock struct {
	repository.Meta
	Count int64
}

var errBoom = errors.New("boom")

func open(t *testing.T, keep time.Duration) (*mongo.Database, *mongorepo.Repo[stock], *mongoinbox.Inbox) {
	t.Helper()
	db := testenv.MongoDatabase(t, testenv.Mongo(t))
	r, err := mongorepo.New[stock](t.Context(), db, mongorepo.Config{Collection: "stock"})
	if err != nil {
		t.Fatal(err)
	}
	i := mongoinbox.Must(mongoinbox.New(db, mongoinbox.Config{Collections: []string{"stock"}, Keep: keep}))
	if err := i.EnsureIndexes(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Create(t.Context(), stock{Meta: repository.Meta{ID: "a"}}); err != nil {
		t.Fatal(err)
	}
	return db, r, i
}

// take handles a message: one is added, once.
func take(r *mongorepo.Repo[stock], i *mongoinbox.Inbox, inside, after error) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := r.Update(ctx, "a", func(ctx context.Context, s *stock) error {
			if err := i.Apply(ctx); err != nil {
				return err
			}
			s.Count++
			return inside
		})
		return errors.Join(err, after)
	}
}

func TestApplyRunsOncePerMessage(t *testing.T) {
	_, r, i := open(t, 0)
	for step, c := range []struct {
		consumer      string
		inside, after error
		dup, fails    bool
		count         int64
	}{
		{"a", errBoom, nil, false, true, 0}, // leaves nothing
		{"a", nil, errBoom, false, true, 1}, // the write stands
		{"a", nil, nil, true, false, 1},
		{"b", nil, nil, false, false, 2},
	} {
		dup, err := i.Once(t.Context(), c.consumer, "m", take(r, i, c.inside, c.after))
		s, gerr := r.Get(t.Context(), "a")
		if dup != c.dup || (err != nil) != c.fails || gerr != nil || s.Count != c.count {
			t.Fatalf("step %d: duplicate %v, error %v, count %d (%v)", step, dup, err, s.Count, gerr)
		}
	}
	if err := i.Apply(t.Context()); !errors.Is(err, mongoinbox.ErrNoMessage) {
		t.Fatal(err)
	}
	if _, err := i.Once(t.Context(), "c", "m", i.Apply); !errors.Is(err, repository.ErrNoEffects) {
		t.Fatalf("Apply outside a write: %v", err)
	}
}

func TestConcurrentDeliveriesApplyOnce(t *testing.T) {
	_, r, i := open(t, 0)
	var wg sync.WaitGroup
	for n := range 24 {
		wg.Go(func() {
			if _, err := i.Once(t.Context(), "c", fmt.Sprint(n%4), take(r, i, nil, nil)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if s, err := r.Get(t.Context(), "a"); err != nil || s.Count != 4 {
		t.Fatalf("count %d, want 4 (%v)", s.Count, err)
	}
}

func TestPurgeRemovesOldTombstones(t *testing.T) {
	db, r, i := open(t, time.Nanosecond)
	nothing := func(context.Context) error { return nil }
	if _, err := i.Once(t.Context(), "c", "first", nothing); err != nil { // the purge of this process is behind us
		t.Fatal(err)
	}
	if dup, err := i.Once(t.Context(), "c", "m", take(r, i, nil, nil)); dup || err != nil {
		t.Fatal(err)
	}
	if err := r.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if dup, err := i.Once(t.Context(), "c", "m", nothing); !dup || err != nil {
		t.Fatalf("the tombstone forgot: %v", err)
	}
	time.Sleep(5 * time.Millisecond)
	if err := i.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, err := db.Collection("stock").CountDocuments(t.Context(), bson.D{}); n != 0 || err != nil {
		t.Fatalf("%d documents left, %v", n, err)
	}
}

// Two deliveries of a message that are handled at the same time create one document.
func TestConcurrentCreatesOfOneMessageApplyOnce(t *testing.T) {
	db, r, i := open(t, 0)
	const messages, deliveries = 20, 4
	var wg sync.WaitGroup
	var mu sync.Mutex
	duplicates := 0
	for n := range messages {
		for range deliveries {
			wg.Go(func() {
				dup, err := i.Once(t.Context(), "c", fmt.Sprint(n), func(ctx context.Context) error {
					_, err := r.Create(ctx, stock{}, func(ctx context.Context, _ *stock) error { return i.Apply(ctx) })
					return err
				})
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				if dup {
					duplicates++
				}
			})
		}
	}
	wg.Wait()
	if got, err := db.Collection("stock").CountDocuments(t.Context(), bson.D{}); got != messages+1 || err != nil {
		t.Errorf("got %d documents, %v; want %d", got, err, messages+1)
	}
	if want := messages * (deliveries - 1); duplicates != want {
		t.Errorf("got %d duplicates, want %d", duplicates, want)
	}
}

func TestOnceReturnsErrNoIndexWithoutTheUniqueIndex(t *testing.T) {
	db := testenv.MongoDatabase(t, testenv.Mongo(t))
	i := mongoinbox.Must(mongoinbox.New(db, mongoinbox.Config{Collections: []string{"stock"}}))
	_, err := i.Once(t.Context(), "c", "m", func(context.Context) error { return nil })
	if !errors.Is(err, mongoinbox.ErrNoIndex) {
		t.Errorf("got %v, want ErrNoIndex", err)
	}
}

// Two attempts at one message that write to different collections: one is applied and the other refused, whichever
// comes first and also at the same time. A collection that the inbox does not cover is refused.
func TestAttemptsThatWriteToDifferentCollections(t *testing.T) {
	db, r, _ := open(t, 0)
	i := mongoinbox.Must(mongoinbox.New(db, mongoinbox.Config{Collections: []string{"stock", "returns"}}))
	other := map[string]*mongorepo.Repo[stock]{"stock": r}
	for _, name := range []string{"returns", "unlisted"} {
		var err error
		if other[name], err = mongorepo.New[stock](t.Context(), db, mongorepo.Config{Collection: name}); err != nil {
			t.Fatal(err)
		}
		if _, err := other[name].Create(t.Context(), stock{Meta: repository.Meta{ID: "a"}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := i.EnsureIndexes(t.Context()); err != nil {
		t.Fatal(err)
	}
	total := func() (n int64) {
		t.Helper()
		for _, r := range other {
			s, err := r.Get(t.Context(), "a")
			if err != nil {
				t.Fatal(err)
			}
			n += s.Count
		}
		return n
	}
	if _, err := i.Once(t.Context(), "c", "m", take(other["unlisted"], i, nil, nil)); !errors.Is(err,
		mongoinbox.ErrCollection) {
		t.Errorf("a write to a collection that is not listed: %v", err)
	}
	// binds, and does not apply
	if _, err := i.Once(t.Context(), "c", "m", take(r, i, errBoom, nil)); !errors.Is(err, errBoom) {
		t.Error(err)
	}
	if _, err := i.Once(t.Context(), "c", "m", take(other["returns"], i, nil, nil)); !errors.Is(err,
		mongoinbox.ErrCollection) {
		t.Errorf("another collection than that of the first attempt: %v", err)
	}
	if dup, err := i.Once(t.Context(), "c", "m", take(r, i, nil, nil)); dup || err != nil {
		t.Errorf("duplicate %v, %v", dup, err)
	}
	if n := total(); n != 1 {
		t.Errorf("applied %d times, want 1", n)
	}
	const messages = 20
	var wg sync.WaitGroup
	for n := range messages {
		for _, name := range []string{"stock", "returns"} {
			wg.Go(func() {
				_, err := i.Once(t.Context(), "c", fmt.Sprint(n), take(other[name], i, nil, nil))
				if err != nil && !errors.Is(err, mongoinbox.ErrCollection) {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	if n := total(); n != 1+messages {
		t.Errorf("%d messages were applied %d times", messages+1, n)
	}
}
