package mongoevents_test

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
	"github.com/sillar-go/sillar/repository/driver"
	"github.com/sillar-go/sillar/repository/eventstore"
	"github.com/sillar-go/sillar/repository/eventstore/eventstoretest"
	"github.com/sillar-go/sillar/repository/eventstore/mongoevents"
)

// database is one of the test's own.
func database(t testing.TB) *mongo.Database {
	t.Helper()
	return testenv.MongoDatabase(t, testenv.Mongo(t))
}

func open(t testing.TB, db *mongo.Database, cfg mongoevents.Config) *mongoevents.Store {
	t.Helper()
	s, err := mongoevents.New(t.Context(), db, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConformance(t *testing.T) {
	eventstoretest.Run(t, func(t testing.TB) eventstore.Store {
		return open(t, database(t), mongoevents.Config{Prefix: "own_"})
	}, eventstoretest.Features{})
}

var event = eventstore.Event{Type: "x"}

// Two processes append at once, each with an end of its own in mind: positions stay whole, and a reader that polls
// beside them meets every event once, in order.
func TestSeveralProcesses(t *testing.T) {
	const processes, each = 4, 20
	db := database(t)
	reader := open(t, db, mongoevents.Config{})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for range processes {
		s := open(t, db, mongoevents.Config{})
		wg.Go(func() {
			for i := range each {
				if _, err := s.Append(ctx, []string{"a", "b", "c"}[i%3], eventstore.AnyVersion, event, event); err != nil {
					t.Error(err)
				}
			}
		})
	}
	position, versions := int64(0), map[string]int64{}
	for d, err := range eventstore.Subscribe(ctx, reader, "") {
		if err != nil {
			t.Fatal(err)
		}
		if d.Position != position+1 || d.Version != versions[d.Stream]+1 {
			t.Fatalf("position %d after %d, version %d of %s after %d", d.Position, position, d.Version, d.Stream,
				versions[d.Stream])
		}
		versions[d.Stream] = d.Version
		if position = d.Position; position == 2*processes*each {
			break
		}
	}
	wg.Wait()
	if position != 2*processes*each {
		t.Errorf("read up to position %d, want %d", position, 2*processes*each)
	}
}

// A cursor may stand inside of an append.
func TestCursorInsideAnAppend(t *testing.T) {
	s := open(t, database(t), mongoevents.Config{})
	for _, stream := range []string{"a", "b"} {
		if _, err := s.Append(t.Context(), stream, eventstore.NoStream, event, event, event); err != nil {
			t.Fatal(err)
		}
	}
	at, n := "", int64(0)
	for {
		events, next, err := s.Read(t.Context(), at, 2)
		if err != nil {
			t.Fatal(err)
		}
		if len(events) == 0 {
			break
		}
		for _, e := range events {
			if n++; e.Position != n {
				t.Fatalf("position %d, want %d", e.Position, n)
			}
		}
		if lag, err := s.Lag(t.Context(), next); err != nil || lag != 6-n {
			t.Errorf("lag %d, %v after %d events", lag, err, n)
		}
		at = next
	}
	if n != 6 {
		t.Errorf("%d events, want 6", n)
	}
	if _, _, err := s.Read(t.Context(), "1-3", 1); !errors.Is(err, eventstore.ErrCursor) {
		t.Errorf("a cursor beyond the document it is in: %v", err)
	}
	var versions []int64
	for e, err := range s.LoadFrom(t.Context(), "b", 2) {
		if err != nil {
			t.Fatal(err)
		}
		versions = append(versions, e.Version)
	}
	if len(versions) != 1 || versions[0] != 3 {
		t.Errorf("after version 2: %v, want 3", versions)
	}
}

// Events that were removed by hand are reported, not passed over.
func TestRemovedEventsAreReported(t *testing.T) {
	db := database(t)
	s := open(t, db, mongoevents.Config{})
	for range 3 {
		if _, err := s.Append(t.Context(), "a", eventstore.AnyVersion, event); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := db.Collection("sillar_events").DeleteOne(t.Context(), bson.D{{Key: "_id", Value: 2}}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Read(t.Context(), "", 10); !errors.Is(err, mongoevents.ErrGap) {
		t.Errorf("Read: %v, want ErrGap", err)
	}
	var last error
	for _, last = range s.LoadFrom(t.Context(), "a", 0) {
	}
	if !errors.Is(last, mongoevents.ErrGap) {
		t.Errorf("LoadFrom: %v, want ErrGap", last)
	}
}

// What OnAppend collects lies in the append's document, or nothing does.
func TestOnAppend(t *testing.T) {
	db := database(t)
	boom := errors.New("boom")
	var fail error
	s := open(t, db, mongoevents.Config{OnAppend: func(ctx context.Context, events []eventstore.Recorded) error {
		for _, e := range events {
			if err := driver.Collect(ctx, driver.Effect{ID: e.ID, Kind: "message", Topic: e.Type,
				Key: e.Stream}); err != nil {
				return err
			}
		}
		return fail
	}})
	if _, err := s.Append(t.Context(), "a", eventstore.NoStream, event, event); err != nil {
		t.Fatal(err)
	}
	fail = boom
	if _, err := s.Append(t.Context(), "a", 2, event); !errors.Is(err, boom) {
		t.Fatal(err)
	}
	cur, err := db.Collection("sillar_events").Find(t.Context(), bson.D{})
	if err != nil {
		t.Fatal(err)
	}
	var docs []struct {
		Effects []driver.Effect `bson:"_effects"`
	}
	if err := cur.All(t.Context(), &docs); err != nil || len(docs) != 1 || len(docs[0].Effects) != 2 ||
		docs[0].Effects[1].Key != "a" {
		t.Errorf("stored %+v, %v", docs, err)
	}
}

func TestAppendRefusesWhatItCannotHold(t *testing.T) {
	db := database(t)
	if _, err := mongoevents.New(t.Context(), db, mongoevents.Config{Prefix: "$x"}); err == nil {
		t.Error("a hostile prefix was accepted")
	}
	s := open(t, db, mongoevents.Config{})
	big := eventstore.Event{Type: "x", Data: []byte(`"` + strings.Repeat("a", 16<<20) + `"`)}
	if _, err := s.Append(t.Context(), "a", eventstore.NoStream, big); !errors.Is(err, eventstore.ErrAppend) {
		t.Errorf("16 MiB: %v", err)
	}
	session, err := db.Client().StartSession()
	if err != nil {
		t.Fatal(err)
	}
	defer session.EndSession(context.Background())
	if err := session.StartTransaction(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(mongo.NewSessionContext(t.Context(), session), "a", eventstore.NoStream, event); !errors.Is(err,
		mongoevents.ErrTransaction) {
		t.Errorf("in a transaction: %v", err)
	}
	// A caller waits for its turn no longer than its context allows.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Append(ctx, "a", eventstore.NoStream, event); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
}
