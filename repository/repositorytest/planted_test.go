package repositorytest_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/driver"
	"github.com/sillar-go/sillar/repository/memrepo"
	"github.com/sillar-go/sillar/repository/repositorytest"
)

type widget = repositorytest.Widget

// planted are repositories that are each wrong in one way, and the check that has to notice.
var planted = map[string]struct {
	check string
	plant func(w *wrong)
}{
	"does not run the functions": {"CreateAndGet", func(w *wrong) {
		w.create = func(ctx context.Context, e widget, _ []repository.WriteHook[widget]) (widget, error) {
			return w.Repository.Create(ctx, e)
		}
	}},
	"leaves out what is zero": {"ZeroValues", func(w *wrong) {
		w.update = func(ctx context.Context, id string, change repository.WriteHook[widget]) (widget, error) {
			return w.Repository.Update(ctx, id, func(ctx context.Context, e *widget) error {
				before := e.Price
				err := change(ctx, e)
				if e.Price == 0 {
					e.Price = before
				}
				return err
			})
		}
	}},
	"reads times in the zone of the machine": {"Times", func(w *wrong) {
		w.get = func(ctx context.Context, id string) (widget, error) {
			e, err := w.Repository.Get(ctx, id)
			e.Made = e.Made.In(time.FixedZone("here", 3600))
			return e, err
		}
	}},
	"deletes what is not there": {"NotFound", func(w *wrong) {
		w.remove = func(ctx context.Context, id string) error { _ = w.Repository.Delete(ctx, id); return nil }
	}},
	"names no fields": {"Unique", func(w *wrong) {
		w.create = func(ctx context.Context, e widget, then []repository.WriteHook[widget]) (widget, error) {
			e, err := w.Repository.Create(ctx, e, then...)
			if errors.Is(err, repository.ErrUnique) {
				err = &repository.UniqueError{Constraint: "x"}
			}
			return e, err
		}
	}},
	"returns another version than it stores": {"Update", func(w *wrong) {
		w.update = func(ctx context.Context, id string, change repository.WriteHook[widget]) (widget, error) {
			e, err := w.Repository.Update(ctx, id, change)
			e.Version--
			return e, err
		}
	}},
	"stores what failed": {"UpdateFails", func(w *wrong) {
		w.update = func(ctx context.Context, id string, change repository.WriteHook[widget]) (widget, error) {
			var failed error
			e, err := w.Repository.Update(ctx, id, func(ctx context.Context, e *widget) error {
				failed = change(ctx, e)
				return nil
			})
			return e, errors.Join(err, failed)
		}
	}},
	"the last one wins": {"Replace", func(w *wrong) { w.replace = w.overwrite }},
	"hides what it should delete": {"Delete", func(w *wrong) {
		hidden := map[string]bool{}
		w.remove = func(_ context.Context, id string) error { hidden[id] = true; return nil }
		w.get = func(ctx context.Context, id string) (widget, error) {
			if hidden[id] {
				return widget{}, repository.ErrNotFound
			}
			return w.Repository.Get(ctx, id)
		}
	}},
	"brings back what was deleted": {"DeleteAgainstUpdate", func(w *wrong) {
		w.update = func(ctx context.Context, id string, change repository.WriteHook[widget]) (widget, error) {
			return w.inTwoSteps(ctx, id, change, func(ctx context.Context, e widget) (widget, error) {
				out, err := w.overwrite(ctx, e)
				if errors.Is(err, repository.ErrNotFound) {
					return w.Repository.Create(ctx, e)
				}
				return out, err
			})
		}
	}},
	"returns many in an order of its own": {"GetMany", func(w *wrong) {
		w.getMany = func(ctx context.Context, ids []string) ([]widget, error) {
			return w.Repository.GetMany(ctx, slices.Sorted(slices.Values(ids)))
		}
	}},
	"hands out what it keeps": {"Isolation", func(w *wrong) {
		kept := map[string]widget{}
		w.get = func(ctx context.Context, id string) (widget, error) {
			if e, ok := kept[id]; ok {
				return e, nil
			}
			e, err := w.Repository.Get(ctx, id)
			kept[id] = e
			return e, err
		}
	}},
	"loses updates": {"ConcurrentUpdates", func(w *wrong) {
		w.update = func(ctx context.Context, id string, change repository.WriteHook[widget]) (widget, error) {
			return w.inTwoSteps(ctx, id, change, w.overwrite)
		}
	}},
	"compares, then writes": {"ConcurrentReplace", func(w *wrong) {
		w.replace = func(ctx context.Context, e widget) (widget, error) {
			now, err := w.Repository.Get(ctx, e.ID)
			if err == nil && now.Version != e.Version {
				err = &repository.ConflictError{ID: e.ID, Expected: e.Version, Actual: now.Version}
			}
			if err != nil {
				return e, err
			}
			time.Sleep(5 * time.Millisecond)
			return w.overwrite(ctx, e)
		}
	}},
	"does not look at case": {"Filters", func(w *wrong) {
		w.count = func(ctx context.Context, where repository.Filter[widget]) (n int64, err error) {
			node, err := where.Node()
			if err != nil || node.Op != driver.OpPrefix {
				return w.Repository.Count(ctx, where)
			}
			for e, err := range w.Repository.Each(ctx, repository.Query[widget]{}) {
				if err != nil {
					return 0, err
				}
				if strings.HasPrefix(strings.ToLower(e.Name), strings.ToLower(node.Value.(string))) {
					n++
				}
			}
			return n, nil
		}
	}},
	"looks for an element in the text of a list": {"Lists", func(w *wrong) {
		w.count = func(ctx context.Context, where repository.Filter[widget]) (n int64, err error) {
			node, err := where.Node()
			if err != nil || node.Op != driver.OpElement {
				return w.Repository.Count(ctx, where)
			}
			for e, err := range w.Repository.Each(ctx, repository.Query[widget]{}) {
				if err != nil {
					return 0, err
				}
				if strings.Contains(strings.Join(e.Tags, ","), fmt.Sprint(node.Value)) {
					n++
				}
			}
			return n, nil
		}
	}},
	"compares nested numbers as text": {"Nested", func(w *wrong) {
		w.count = func(ctx context.Context, where repository.Filter[widget]) (n int64, err error) {
			node, err := where.Node()
			if level, _ := repositorytest.Level.Gt(0).Node(); err != nil || node.Column != level.Column {
				return w.Repository.Count(ctx, where)
			}
			for e, err := range w.Repository.Each(ctx, repository.Query[widget]{}) {
				if err != nil {
					return 0, err
				}
				if fmt.Sprint(e.Place.Deep.Level) > fmt.Sprint(node.Value) {
					n++
				}
			}
			return n, nil
		}
	}},
	"lists what begins with another letter once": {"Distinct", func(w *wrong) {
		w.find = func(ctx context.Context, q repository.Query[widget]) (repository.Page[widget], error) {
			page, err := w.Repository.Find(ctx, q)
			if len(page.Items) == 1 && page.Items[0].Name == "B" { // as a collation that ignores case does
				page.Items[0].Name = "b"
			}
			return page, err
		}
	}},
	"reads one too many": {"Paging", func(w *wrong) {
		w.find = func(ctx context.Context, q repository.Query[widget]) (repository.Page[widget], error) {
			if q.Limit > 0 && q.Limit < repository.MaxLimit {
				q.Limit++
			}
			return w.Repository.Find(ctx, q)
		}
	}},
	"counts to the next page": {"PagingUnderWrites", func(w *wrong) {
		w.find = func(ctx context.Context, q repository.Query[widget]) (repository.Page[widget], error) {
			q.Limit = 50
			q.Offset, _ = strconv.Atoi(q.After)
			q.After = ""
			page, err := w.Repository.Find(ctx, q)
			if page.Next != "" {
				page.Next = strconv.Itoa(q.Offset + len(page.Items))
			}
			return page, err
		}
	}},
	"begins anew with a foreign cursor": {"Cursors", func(w *wrong) {
		w.find = func(ctx context.Context, q repository.Query[widget]) (repository.Page[widget], error) {
			page, err := w.Repository.Find(ctx, q)
			if errors.Is(err, repository.ErrCursor) {
				q.After = ""
				return w.Repository.Find(ctx, q)
			}
			return page, err
		}
	}},
	"finds nothing by an unknown field": {"HostileFields", func(w *wrong) {
		w.count = func(ctx context.Context, where repository.Filter[widget]) (int64, error) {
			n, err := w.Repository.Count(ctx, where)
			if errors.Is(err, repository.ErrQuery) {
				return 0, nil
			}
			return n, err
		}
	}},
	"fails where it cannot ask": {"StrangeValues", func(w *wrong) {
		w.count = func(ctx context.Context, where repository.Filter[widget]) (int64, error) {
			if node, _ := where.Node(); strings.Contains(fmt.Sprint(node.Value), "\x00") {
				return 0, errors.New("invalid byte sequence")
			}
			return w.Repository.Count(ctx, where)
		}
	}},
	"ends a walk at a long key": {"StrangeKeys", func(w *wrong) {
		w.find = func(ctx context.Context, q repository.Query[widget]) (repository.Page[widget], error) {
			page, err := w.Repository.Find(ctx, q)
			if len(page.Next) > 8<<10 {
				page.Next = ""
			}
			return page, err
		}
	}},
	"works for a caller that has left": {"EndedContext", func(w *wrong) {
		w.create = func(ctx context.Context, e widget, then []repository.WriteHook[widget]) (widget, error) {
			return w.Repository.Create(context.WithoutCancel(ctx), e, then...)
		}
	}},
	"imports without the times": {"CreateMany", func(w *wrong) {
		w.many = func(ctx context.Context, list []widget) ([]widget, error) {
			list = slices.Clone(list)
			for i := range list {
				list[i].CreatedAt, list[i].UpdatedAt = time.Time{}, time.Time{}
			}
			return w.Repository.CreateMany(ctx, list)
		}
	}},
	"stores a part of many": {"CreateMany", func(w *wrong) {
		w.many = func(ctx context.Context, list []widget) (out []widget, err error) {
			for _, e := range list {
				one, err := w.Repository.CreateMany(ctx, []widget{e})
				if err != nil {
					continue
				}
				out = append(out, one...)
			}
			return out, nil
		}
	}},
	"puts over what is there only": {"Put", func(w *wrong) {
		w.put = func(ctx context.Context, e widget) (widget, error) {
			if stored, err := w.Repository.Get(ctx, e.ID); err == nil {
				e.CreatedAt = time.Now().Add(time.Hour)
				_ = w.Repository.Delete(ctx, stored.ID)
			}
			return w.Repository.Create(ctx, e)
		}
	}},
	"puts with a read before": {"PutAtOnce", func(w *wrong) {
		w.put = func(ctx context.Context, e widget) (widget, error) {
			stored, err := w.Repository.Get(ctx, e.ID)
			time.Sleep(time.Millisecond)
			if err != nil {
				return w.Repository.Create(ctx, e)
			}
			e.Version = stored.Version
			return w.Repository.Replace(ctx, e)
		}
	}},
	"leaves versions as they are": {"UpdateWhere", func(w *wrong) {
		w.set = func(ctx context.Context, where repository.Filter[widget],
			set []repository.Assignment[widget]) (int64, error) {
			page, err := w.Repository.Find(ctx, repository.Query[widget]{Where: where})
			if err != nil || len(set) == 0 {
				return 0, err
			}
			n, err := w.Repository.UpdateWhere(ctx, where, set...)
			for _, e := range page.Items {
				stored, gerr := w.Repository.Get(ctx, e.ID)
				if gerr != nil {
					return n, err
				}
				stored.Version, stored.SKU = e.Version, stored.SKU+"x"
				_ = w.Repository.Delete(ctx, e.ID)
				_, _ = w.Repository.CreateMany(ctx, []widget{stored})
			}
			return n, err
		}
	}},
	"deletes all": {"DeleteWhere", func(w *wrong) {
		w.clear = func(ctx context.Context, _ repository.Filter[widget]) (int64, error) {
			return w.Repository.DeleteWhere(ctx, repository.Filter[widget]{})
		}
	}},
	"deletes whatever a function says": {"DeleteInVersion", func(w *wrong) {
		w.remove = func(ctx context.Context, id string) error { return w.Repository.Delete(ctx, id) }
	}},
	"finds no more than one": {"One", func(w *wrong) {
		w.find = func(ctx context.Context, q repository.Query[widget]) (repository.Page[widget], error) {
			q.Limit = 1
			return w.Repository.Find(ctx, q)
		}
	}},
	"forgets one of what a compound filter selects": {"RandomQueries", func(w *wrong) {
		w.find = func(ctx context.Context, q repository.Query[widget]) (repository.Page[widget], error) {
			page, err := w.Repository.Find(ctx, q)
			if node, _ := q.Where.Node(); node.Op >= driver.OpAnd && node.Op <= driver.OpNot && len(page.Items) > 1 {
				page.Items = page.Items[1:]
			}
			return page, err
		}
	}},
}

const variable = "REPOSITORYTEST_PLANTED"

var failed = regexp.MustCompile(`(?m)^\s+--- FAIL: TestSuiteFindsPlantedBugs/(\w+)`)

// TestSuiteFindsPlantedBugs runs the suite on wrong repositories, each in a process of its own, and expects its check
// to fail; and that every check has a wrong repository.
func TestSuiteFindsPlantedBugs(t *testing.T) {
	if name := os.Getenv(variable); name != "" {
		repositorytest.Run(t, func(testing.TB) repository.Repository[widget] {
			w := &wrong{Repository: memrepo.Must(memrepo.New[widget](memrepo.Config{Unique: repositorytest.Unique}))}
			planted[name].plant(w)
			return w
		}, repositorytest.Features{})
		return
	}
	looked := map[string]bool{}
	for name, p := range planted {
		looked[p.check] = true
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSuiteFindsPlantedBugs$/^"+p.check+"$", "-test.v",
				fmt.Sprintf("-test.short=%v", p.check == "PagingUnderWrites"))
			cmd.Env = append(os.Environ(), variable+"="+name)
			cmd.Dir = t.TempDir() // for what rapid writes
			out, err := cmd.CombinedOutput()
			if m := failed.FindStringSubmatch(string(out)); err == nil || m == nil || m[1] != p.check {
				t.Errorf("%s did not notice (%v):\n%s", p.check, err, out)
			}
		})
	}
	for _, check := range repositorytest.Checks() {
		if !looked[check] {
			t.Errorf("no repository is wrong in what %s looks at", check)
		}
	}
}
