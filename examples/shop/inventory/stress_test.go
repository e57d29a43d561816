package inventory

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/sillar-go/sillar/examples/shop/internal/platform"
	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/sqldb"
)

// Sixteen sagas at a time fight for little stock, in orders of lines that differ, with every request sent twice. What
// is promised never exceeds what is there, nothing is negative at any moment, and in the end the numbers add up.
func TestNeverOversold(t *testing.T) {
	for name, dsn := range databases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, err := sqldb.Open(t.Context(), dsn(t), sqldb.Config{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = db.Close() })
			s, err := open(t.Context(), db)
			if err != nil {
				t.Fatal(err)
			}
			oversell(t, s)
		})
	}
}

// oversell reserves, commits and releases at once from many workers.
func oversell(t *testing.T, s *Service) {
	t.Helper()
	const workers, rounds, begin = 16, 4, 20
	products := []string{"a", "b", "c"}
	for _, p := range products {
		if err := s.Add(t.Context(), p, begin); err != nil {
			t.Fatal(err)
		}
	}
	var mu sync.Mutex
	left := map[string]int64{} // handed out for good
	refused := 0
	watched, stop := context.WithCancel(t.Context())
	var watcher, all sync.WaitGroup
	watcher.Go(func() {
		for watched.Err() == nil {
			look(t, s, products)
		}
	})
	for w := range workers {
		all.Go(func() {
			for r := range rounds {
				order := fmt.Sprintf("o-%d-%d", w, r)
				items := []Item{{"a", 1 + rand.Int64N(3)}, {"b", 1 + rand.Int64N(3)}, {"c", 1 + rand.Int64N(3)}}
				rand.Shuffle(len(items), func(i, j int) { items[i], items[j] = items[j], items[i] })
				stays, err := live(t.Context(), s, order, items, (w+r)%4)
				var p *platform.Problem
				if errors.As(err, &p) && p.Status == 409 {
					mu.Lock()
					if p.Type == "https://sillar.dev/problems/out-of-stock" {
						refused++
					}
					mu.Unlock()
					continue
				}
				if err != nil {
					t.Errorf("%s: %v", order, err)
					return
				}
				if stays {
					mu.Lock()
					for _, it := range items {
						left[it.ProductID] += it.Quantity
					}
					mu.Unlock()
				}
			}
		})
	}
	all.Wait()
	stop()
	watcher.Wait()
	for _, p := range products {
		st, err := s.stocks.Get(t.Context(), p)
		if err != nil || st.Reserved != 0 || st.OnHand != begin-left[p] {
			t.Errorf("in the end %s: %+v, %v; want %d on hand and nothing reserved", p, st, err, begin-left[p])
		}
	}
	if refused == 0 {
		t.Error("nothing was refused: the test shows nothing")
	}
}

// look checks what must be true at any moment.
func look(t *testing.T, s *Service, products []string) {
	found, err := s.stocks.GetMany(t.Context(), products)
	if err != nil {
		t.Error(err)
	}
	for _, st := range found {
		if st.Reserved < 0 || st.OnHand < 0 || st.Available() < 0 {
			t.Errorf("%s: %d on hand, %d reserved", st.ID, st.OnHand, st.Reserved)
		}
	}
}

// live is a reservation's life, one of four, each request sent twice at once. It reports whether the goods are gone.
func live(ctx context.Context, s *Service, order string, items []Item, how int) (gone bool, err error) {
	id := ReservationID(order)
	reserve := func() error { _, err := s.Reserve(ctx, order+"/reserve/do", order, items); return err }
	release := func() error { return s.Release(ctx, order+"/reserve/undo", id) }
	commit := func() error { _, err := s.Commit(ctx, order+"/commit/do", id); return err }
	restock := func() error { _, err := s.Restock(ctx, order+"/restock/do", id); return err }
	if how == 3 { // the two race
		err := twice(reserve, release)
		return false, errors.Join(err, release())
	}
	if err := twice(reserve, reserve); err != nil {
		return false, errors.Join(err, release())
	}
	switch how {
	case 0:
		return false, twice(release, release)
	case 1:
		return true, twice(commit, commit)
	default:
		// A customer cancels while the goods leave: whichever comes first, they are back in the end.
		return false, twice(commit, restock)
	}
}

func twice(a, b func() error) error {
	var one, two error
	var wg sync.WaitGroup
	wg.Go(func() { one = a() })
	wg.Go(func() { two = b() })
	wg.Wait()
	return errors.Join(one, two)
}

func TestAddLeavesWhatIsThere(t *testing.T) {
	db, err := sqldb.Open(t.Context(), databases["sqlite"](t), sqldb.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	s, err := open(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.stocks.Create(t.Context(), Stock{Meta: repository.Meta{ID: "lamp"}, OnHand: 3}); err != nil {
		t.Fatal(err)
	}
	if err := s.Add(t.Context(), "lamp", 9); err != nil {
		t.Fatal(err)
	}
	if st, err := s.stocks.Get(t.Context(), "lamp"); err != nil || st.OnHand != 3 {
		t.Errorf("%+v, %v", st, err)
	}
}
