package sqlevents_test

import (
	"context"
	"errors"
	"testing"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/eventstore"
	"github.com/sillar-go/sillar/repository/eventstore/sqlevents"
)

type added struct{ N int }

// A conflict has changed nothing, so a caller that meets one inside a transaction may read again and continue: Handle
// does, and so may a caller who takes it for an answer.
func TestConflictInsideTransaction(t *testing.T) {
	for name, dsn := range testenv.SQL() {
		t.Run(name, func(t *testing.T) {
			db, s := open(t, dsn(t), sqlevents.Config{OnAppend: func(context.Context, []eventstore.Recorded) error {
				return nil
			}})
			sum, err := eventstore.NewAggregate(s, eventstore.Decider[int, added]{Evolve: func(sum int, e added) int {
				return sum + e.N
			}},
				eventstore.Types[added]{eventstore.Type[added]("added", 1)}, eventstore.AggregateConfig{Category: "sum"})
			if err != nil {
				t.Fatal(err)
			}
			add := func(n int) func(context.Context, int) ([]added, error) {
				return func(context.Context, int) ([]added, error) { return []added{{n}}, nil }
			}
			if _, err := sum.Handle(t.Context(), "a", add(1)); err != nil {
				t.Fatal(err)
			}
			runs := 0
			err = db.InTx(t.Context(), func(ctx context.Context) error {
				_, err := sum.Handle(ctx, "a", func(ctx context.Context, have int) ([]added, error) {
					if runs++; runs > 1 {
						return []added{{have * 10}}, nil
					}
					by := t.Context() // another transaction; SQLite, which has one writer, is overtaken from within
					if name == "sqlite" {
						by = ctx
					}
					if _, err := sum.Handle(by, "a", add(2)); err != nil {
						return nil, err
					}
					return []added{{have * 10}}, nil
				})
				return err
			})
			if got, version, lerr := sum.Load(t.Context(), "a"); err != nil || lerr != nil || runs != 2 || got != 33 ||
				version != 3 {
				t.Errorf("%d at version %d after %d runs, want 33 at 3 after 2: %v, %v", got, version, runs, err, lerr)
			}

			var conflict *repository.ConflictError
			err = db.InTx(t.Context(), func(ctx context.Context) error {
				if _, err := s.Append(ctx, "sum-a", 1, eventstore.Event{Type: "added"}); !errors.As(err, &conflict) ||
					conflict.Actual != 3 {
					t.Errorf("a stale append: %v", err)
				}
				_, err := s.Append(ctx, "b", eventstore.NoStream, eventstore.Event{Type: "added"})
				return err
			})
			if err != nil {
				t.Errorf("the rest of a transaction with a conflict: %v", err)
			}
		})
	}
}
