package mongooutbox_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.uber.org/goleak"

	"github.com/sillar-go/sillar/internal/killtest"
	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/memory"
	"github.com/sillar-go/sillar/messaging/outbox"
	"github.com/sillar-go/sillar/messaging/outbox/mongooutbox"
	"github.com/sillar-go/sillar/messaging/outbox/outboxtest"
	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/driver"
	"github.com/sillar-go/sillar/repository/mongorepo"
)

func TestMain(m *testing.M) { killtest.Main(); goleak.VerifyTestMain(m) }

func init() {
	killtest.Register("relay", func(args []string) error {
		db, err := testenv.OpenMongo(args[0])
		if err != nil {
			return err
		}
		return outboxtest.RunRelay(mongooutbox.Must(mongooutbox.New(db,
			mongooutbox.Config{Collections: []string{"others", "things"}})), args[1])
	})
}

type thing struct {
	repository.Meta
	N int64
}

func open(t *testing.T) (*mongo.Database, *mongorepo.Repo[thing], *mongooutbox.Outbox) {
	t.Helper()
	return openAt(t, testenv.Mongo(t))
}

func openAt(t *testing.T, dsn string) (*mongo.Database, *mongorepo.Repo[thing], *mongooutbox.Outbox) {
	t.Helper()
	db := testenv.MongoDatabase(t, dsn)
	r, err := mongorepo.New[thing](t.Context(), db, mongorepo.Config{Collection: "things"})
	if err != nil {
		t.Fatal(err)
	}
	o := mongooutbox.Must(mongooutbox.New(db, mongooutbox.Config{Source: "test", Collections: []string{"others",
		"things"}}))
	if err := o.EnsureIndexes(t.Context()); err != nil {
		t.Fatal(err)
	}
	return db, r, o
}

func TestConformance(t *testing.T) {
	outboxtest.Run(t, func(t *testing.T) outboxtest.Box {
		_, r, o := open(t)
		return box(r, o)
	})
}

// box keeps the events of a key in the document of that id.
func box(r *mongorepo.Repo[thing], o *mongooutbox.Outbox) outboxtest.Box {
	return outboxtest.Box{Store: o, Poll: 50 * time.Millisecond, Commit: func(ctx context.Context, fail error,
		events ...messaging.Envelope) error {
		change := func(ctx context.Context, x *thing) error {
			x.N++
			return errors.Join(o.PublishBatch(ctx, events), fail)
		}
		_, err := r.Update(ctx, events[0].Key, change)
		if errors.Is(err, repository.ErrNotFound) {
			_, err = r.Create(ctx, thing{Meta: repository.Meta{ID: events[0].Key}}, change)
		}
		return err
	}}
}

// Events that are skipped together stay in their order, whatever their ids.
func TestSkipHeldKeepsTheOrderOfEvents(t *testing.T) {
	_, r, o := open(t)
	var events []messaging.Envelope
	for _, id := range []string{"z", "y", "x"} {
		events = append(events, messaging.Envelope{ID: id, Type: "t", Key: "k", Body: []byte("{}")})
	}
	if err := box(r, o).Commit(t.Context(), nil, events...); err != nil {
		t.Fatal(err)
	}
	entries, err := o.Claim(t.Context(), "me", 10, time.Minute)
	if err == nil {
		err = o.Hold(t.Context(), "me", entries, outbox.Hold{Pause: time.Hour, StopsKey: true})
	}
	if err != nil {
		t.Fatal(err)
	}
	ids := func() (ids string, refs []string) {
		held, err := o.ListHeld(t.Context(), 10)
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range held {
			ids, refs = ids+h.ID, append(refs, h.Ref)
		}
		return ids, refs
	}
	_, refs := ids()
	if n, err := o.SkipHeld(t.Context(), refs[0], refs[1], refs[0]); n != 2 || err != nil {
		t.Errorf("skipped %d, %v; want 2", n, err)
	}
	if got, _ := ids(); got != "xzy" {
		t.Errorf("after z and y are skipped the order is %s, want xzy", got)
	}
}

// The write is one and does not wait, so that nothing commits late here.
func TestKilledRelays(t *testing.T) {
	dsn, file := testenv.Mongo(t), filepath.Join(t.TempDir(), "witness")
	_, r, o := openAt(t, dsn)
	outboxtest.RunKilled(t, box(r, o), file, false, func(t *testing.T) *killtest.Process {
		return killtest.Start(t, "relay", dsn, file)
	})
}

func TestPublishOutsideAWrite(t *testing.T) {
	_, _, o := open(t)
	if err := o.Publish(t.Context(), "a", 1); !errors.Is(err, repository.ErrNoEffects) {
		t.Fatal(err)
	}
}

// A tombstone is removed when its events are published, and a document that is no tombstone stays; effects of other
// kinds are left.
func TestTombstonesGoWithTheirEvents(t *testing.T) {
	db, r, o := open(t)
	ctx := t.Context()
	tell := func(ctx context.Context, x *thing) error { return o.Publish(ctx, "t", x.ID) }
	other := func(ctx context.Context, x *thing) error {
		return driver.Collect(ctx, driver.Effect{ID: "o", Kind: "other", Topic: "t"})
	}
	gone, err := r.Create(ctx, thing{}, tell)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Delete(ctx, gone.ID, tell); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Create(ctx, thing{}, tell, other); err != nil {
		t.Fatal(err)
	}
	entries, err := o.Claim(ctx, "me", 10, time.Minute)
	if err != nil || len(entries) != 3 {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	if err := o.Done(ctx, "me", entries); err != nil {
		t.Fatal(err)
	}
	var docs []struct {
		Effects []driver.Effect `bson:"_effects"`
	}
	cur, err := db.Collection("things").Find(ctx, bson.D{})
	if err != nil {
		t.Fatal(err)
	}
	if err := cur.All(ctx, &docs); err != nil || len(docs) != 1 || len(docs[0].Effects) != 1 ||
		docs[0].Effects[0].Kind != "other" {
		t.Fatalf("%+v, %v", docs, err)
	}
	if n, _, err := o.Pending(ctx); n != 0 || err != nil {
		t.Fatalf("%d pending, %v", n, err)
	}
}

// With and without change streams on the server, relays find what was committed.
func TestRelayFindsCommitsWithAndWithoutChangeStreams(t *testing.T) {
	db, r, _ := open(t)
	reported := make(chan string, 1)
	o := mongooutbox.Must(mongooutbox.New(db, mongooutbox.Config{Source: "test", Collections: []string{"things"},
		Logger: slog.New(slog.NewTextHandler(says(reported), nil))}))
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	wake := o.Wake(ctx)
	for n := 0; ; n++ { // the stream may not be open yet at the first
		if _, err := r.Create(ctx, thing{}, func(ctx context.Context, x *thing) error {
			return o.Publish(ctx, "t", n)
		}); err != nil {
			t.Fatal(err)
		}
		select {
		case <-wake:
			t.Log("woken by a change stream")
		case line := <-reported:
			if !strings.Contains(line, "the relay polls") {
				t.Errorf("logged %q", line)
			}
		case <-time.After(200 * time.Millisecond):
			continue
		case <-ctx.Done():
			t.Fatal("neither woken nor notified")
		}
		break
	}
	b := memory.Must(memory.New(memory.Config{}))
	defer b.Close()
	s, err := b.Subscribe(ctx, messaging.Subscription{Group: "g", Patterns: []string{"t"}, Prefetch: 1})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		done <- outbox.Must(outbox.NewRelay(o, b, outbox.RelayConfig{Poll: 50 * time.Millisecond})).Run(ctx)
	}()
	if _, err := s.Receive(ctx); err != nil {
		t.Error(err)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

type says chan string

func (s says) Write(p []byte) (int, error) {
	select {
	case s <- string(p):
	default:
	}
	return len(p), nil
}
