package eventstoretest_test

import (
	"context"
	"errors"
	"iter"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/eventstore"
	"github.com/sillar-go/sillar/repository/eventstore/eventstoretest"
	"github.com/sillar-go/sillar/repository/eventstore/memevents"
)

// plain runs a function and undoes nothing.
func plain(ctx context.Context, _ eventstore.Store, fn func(context.Context) error) error {
	return fn(ctx)
}

type pendingKey struct{}

// late keeps what is appended in a transaction to itself until that commits.
func late(ctx context.Context, _ eventstore.Store, fn func(context.Context) error) error {
	var commits []func()
	if err := fn(context.WithValue(ctx, pendingKey{}, &commits)); err != nil {
		return err
	}
	for _, commit := range commits {
		commit()
	}
	return nil
}

// serial reads by a number that is given out when an event is appended, not when that is committed: the naive serial
// column.
func serial(w *wrong) {
	var mu sync.Mutex
	var rows []eventstore.Recorded
	last, versions := int64(0), map[string]int64{}
	w.append = func(ctx context.Context, stream string, _ int64,
		events []eventstore.Event) (out []eventstore.Recorded, _ error) {
		mu.Lock()
		defer mu.Unlock()
		for _, e := range events {
			last++
			versions[stream]++
			out = append(out, eventstore.Recorded{Event: e, Stream: stream, Version: versions[stream], Position: last})
		}
		if commits, ok := ctx.Value(pendingKey{}).(*[]func()); ok {
			*commits = append(*commits, func() {
				mu.Lock()
				defer mu.Unlock()
				rows = append(rows, out...)
			})
			return out, nil
		}
		rows = append(rows, out...)
		return out, nil
	}
	w.read = func(_ context.Context, cursor string, limit int) (out []eventstore.Recorded, next string, err error) {
		mu.Lock()
		defer mu.Unlock()
		after, _ := strconv.ParseInt(cursor, 10, 64)
		slices.SortFunc(rows, func(a, b eventstore.Recorded) int { return int(a.Position - b.Position) })
		for _, r := range rows {
			if r.Position > after && len(out) < limit {
				out, cursor = append(out, r), strconv.FormatInt(r.Position, 10)
			}
		}
		return out, cursor, nil
	}
}

// planted are stores that are each wrong in one way, and the check that has to notice.
var planted = map[string]struct {
	check    string
	plant    func(w *wrong)
	features eventstoretest.Features
}{
	"loses the metadata": {check: "AppendAndLoad", plant: func(w *wrong) {
		w.append = func(ctx context.Context, stream string, expected int64,
			events []eventstore.Event) ([]eventstore.Recorded, error) {
			for i := range events {
				events[i].Metadata = nil
			}
			return w.Store.Append(ctx, stream, expected, events...)
		}
	}},
	"does not compare versions": {check: "ExpectedVersion", plant: func(w *wrong) {
		w.append = func(ctx context.Context, stream string, _ int64,
			events []eventstore.Event) ([]eventstore.Recorded, error) {
			return w.Store.Append(ctx, stream, eventstore.AnyVersion, events...)
		}
	}},
	"takes an event without a type": {check: "Refuses", plant: func(w *wrong) {
		w.append = func(ctx context.Context, stream string, expected int64,
			events []eventstore.Event) ([]eventstore.Recorded, error) {
			for i := range events {
				if events[i].Type == "" {
					events[i].Type = "unknown"
				}
			}
			return w.Store.Append(ctx, stream, expected, events...)
		}
	}},
	"redacts by a prefix": {check: "Redact", plant: func(w *wrong) {
		w.redact = func(ctx context.Context, stream string) error {
			return errors.Join(w.Store.Redact(ctx, stream), w.Store.Redact(ctx, stream+"2"))
		}
	}},
	"selects categories without the hyphen": {check: "Filtered", plant: func(w *wrong) {
		w.filter = func(ctx context.Context, f eventstore.Filter, cursor string,
			limit int) (out []eventstore.Recorded, next string, err error) {
			events, next, err := w.Read(ctx, cursor, limit)
			for _, e := range events {
				if f.All() || slices.ContainsFunc(f.Categories, func(c string) bool { return strings.HasPrefix(e.Stream, c) }) {
					out = append(out, e)
				}
			}
			return out, next, err
		}
	}},
	"passes over what did not fit": {check: "Filtered", plant: func(w *wrong) {
		w.filter = func(ctx context.Context, f eventstore.Filter, cursor string,
			limit int) (out []eventstore.Recorded, next string, err error) {
			events, next, err := w.Read(ctx, cursor, 20)
			for _, e := range events {
				if f.Selects(e.Stream, e.Type) && len(out) < limit {
					out = append(out, e)
				}
			}
			return out, next, err
		}
	}},
	"deletes whatever the version is": {check: "Delete", plant: func(w *wrong) {
		w.remove = func(ctx context.Context, stream string, _ int64) error {
			return w.Store.Delete(ctx, stream, eventstore.AnyVersion)
		}
	}},
	"only redacts": {check: "Delete", plant: func(w *wrong) {
		w.remove = func(ctx context.Context, stream string, _ int64) error { return w.Store.Redact(ctx, stream) }
	}},
	"looks, then writes": {check: "OneWinner", plant: func(w *wrong) {
		w.append = func(ctx context.Context, stream string, expected int64,
			events []eventstore.Event) ([]eventstore.Recorded, error) {
			if v := w.version(stream); expected != eventstore.AnyVersion && v != expected {
				return nil, &repository.ConflictError{ID: stream, Expected: expected, Actual: v}
			}
			time.Sleep(5 * time.Millisecond)
			return w.Store.Append(ctx, stream, eventstore.AnyVersion, events...)
		}
	}},
	"appends at the version it saw": {check: "AnyVersion", plant: func(w *wrong) {
		w.append = func(ctx context.Context, stream string, expected int64,
			events []eventstore.Event) ([]eventstore.Recorded, error) {
			if expected == eventstore.AnyVersion {
				expected = w.version(stream)
				time.Sleep(time.Millisecond)
			}
			return w.Store.Append(ctx, stream, expected, events...)
		}
	}},
	"gives ids of its own": {check: "UniqueIDs", plant: func(w *wrong) {
		w.append = func(ctx context.Context, stream string, expected int64,
			events []eventstore.Event) ([]eventstore.Recorded, error) {
			for i := range events {
				events[i].ID = ""
			}
			return w.Store.Append(ctx, stream, expected, events...)
		}
	}},
	"takes a repeated append for a conflict": {check: "RepeatedAppend", plant: func(w *wrong) {
		w.append = func(ctx context.Context, stream string, expected int64,
			events []eventstore.Event) ([]eventstore.Recorded, error) {
			if v := w.version(stream); expected != eventstore.AnyVersion && v != expected {
				return nil, &repository.ConflictError{ID: stream, Expected: expected, Actual: v}
			}
			return w.Store.Append(ctx, stream, expected, events...)
		}
	}},
	"does not look at the context": {check: "EndedContext", plant: func(w *wrong) {
		w.append = func(ctx context.Context, stream string, expected int64,
			events []eventstore.Event) ([]eventstore.Recorded, error) {
			return w.Store.Append(context.WithoutCancel(ctx), stream, expected, events...)
		}
	}},
	"passes over an event at the end of a page": {check: "ReadAll", plant: func(w *wrong) {
		w.read = func(ctx context.Context, cursor string, limit int) ([]eventstore.Recorded, string, error) {
			events, next, err := w.Store.Read(ctx, cursor, limit)
			return events[:min(len(events), limit-1)], next, err
		}
	}},
	"takes any cursor": {check: "Cursors", plant: func(w *wrong) {
		w.read = func(ctx context.Context, cursor string, limit int) ([]eventstore.Recorded, string, error) {
			events, next, err := w.Store.Read(ctx, cursor, limit)
			if err != nil {
				return w.Store.Read(ctx, "", limit)
			}
			return events, next, nil
		}
	}},
	"reads the latest first": {check: "TailBesideWriters", plant: func(w *wrong) {
		w.read = func(ctx context.Context, cursor string, limit int) ([]eventstore.Recorded, string, error) {
			events, next, err := w.Store.Read(ctx, cursor, limit)
			slices.Reverse(events)
			return events, next, err
		}
	}},
	"counts when it appends, not when it commits": {check: "LateCommit", plant: serial,
		features: eventstoretest.Features{InTx: late}},
	"undoes nothing": {check: "Rollback", plant: func(*wrong) {}, features: eventstoretest.Features{InTx: plain}},
	"takes an older snapshot": {check: "Snapshots", plant: func(w *wrong) {
		kept := map[int]eventstore.Snapshot{}
		w.save = func(_ context.Context, s eventstore.Snapshot) error {
			kept[s.Schema] = s
			return nil
		}
		w.snap = func(_ context.Context, _ string, schema int) (eventstore.Snapshot, bool, error) {
			s, ok := kept[schema]
			return s, ok, nil
		}
	}},
	"moves a checkpoint from anywhere": {check: "Checkpoints", plant: func(w *wrong) {
		w.move = func(ctx context.Context, projection, _, to string) error {
			from, err := w.Checkpoint(ctx, projection)
			if err != nil {
				return err
			}
			return w.Store.MoveCheckpoint(ctx, projection, from, to)
		}
	}},
	"loads one page": {check: "LongStream", plant: func(w *wrong) {
		w.load = func(ctx context.Context, stream string, after int64) iter.Seq2[eventstore.Recorded, error] {
			return func(yield func(eventstore.Recorded, error) bool) {
				n := 0
				for r, err := range w.Store.LoadFrom(ctx, stream, after) {
					if n++; n > 500 || !yield(r, err) {
						return
					}
				}
			}
		}
	}},
}

const variable = "EVENTSTORETEST_PLANTED"

var failed = regexp.MustCompile(`(?m)^\s+--- FAIL: TestSuiteFindsPlantedBugs/(\w+)`)

// TestSuiteFindsPlantedBugs runs the suite on wrong stores, each in a process of its own, and expects its check to
// fail; and that every check has a wrong store.
func TestSuiteFindsPlantedBugs(t *testing.T) {
	if name := os.Getenv(variable); name != "" {
		p := planted[name]
		eventstoretest.Run(t, func(testing.TB) eventstore.Store {
			w := &wrong{Store: memevents.New(memevents.Config{})}
			p.plant(w)
			return w
		}, p.features)
		return
	}
	for name, p := range planted {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSuiteFindsPlantedBugs$/^"+p.check+"$", "-test.v")
			cmd.Env = append(os.Environ(), variable+"="+name)
			out, err := cmd.CombinedOutput()
			if m := failed.FindStringSubmatch(string(out)); err == nil || m == nil || m[1] != p.check {
				t.Errorf("%s did not notice (%v):\n%s", p.check, err, out)
			}
		})
	}
	looked := map[string]bool{}
	for _, p := range planted {
		looked[p.check] = true
	}
	for _, check := range eventstoretest.Checks() {
		if !looked[check] {
			t.Errorf("no store is wrong in what %s looks at", check)
		}
	}
}
