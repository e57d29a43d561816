package sqlevents_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/repository/eventstore"
	"github.com/sillar-go/sillar/repository/eventstore/sqlevents"
	"github.com/sillar-go/sillar/repository/sqldb"
)

// A stream is deleted beside 8 writers: each append is before the deletion, and gone, or is refused.
func TestDeleteBesideWriters(t *testing.T) {
	for name, dsn := range testenv.SQL() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := sqldb.Must(sqldb.Open(t.Context(), dsn(t), sqldb.Config{Synchronous: "OFF"}))
			t.Cleanup(func() { _ = db.Close() })
			s := sqlevents.Must(sqlevents.New(db, sqlevents.Config{}))
			if err := s.EnsureSchema(t.Context()); err != nil {
				t.Fatal(err)
			}
			var appended atomic.Int64
			var wg sync.WaitGroup
			begun := make(chan struct{}, 1000)
			for range 8 {
				wg.Go(func() {
					for {
						_, err := s.Append(t.Context(), "a-1", eventstore.AnyVersion, eventstore.Event{Type: "x"})
						if errors.Is(err, eventstore.ErrDeleted) {
							return
						}
						if err != nil {
							t.Error(err)
							return
						}
						if appended.Add(1) <= 200 {
							begun <- struct{}{}
						}
					}
				})
			}
			for range 50 {
				<-begun
			}
			if err := s.Delete(t.Context(), "a-1", eventstore.AnyVersion); err != nil {
				t.Fatal(err)
			}
			wg.Wait()
			var got []eventstore.Recorded
			for r, err := range eventstore.Load(t.Context(), s, "a-1") {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, r)
			}
			if len(got) != 1 || got[0].Type != eventstore.Deleted || got[0].Version != appended.Load()+1 {
				t.Errorf("after %d appends got %+v, want the deletion alone", appended.Load(), got)
			}
		})
	}
}
