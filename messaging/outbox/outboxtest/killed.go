package outboxtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sillar-go/sillar/internal/killtest"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/driver"
	"github.com/sillar-go/sillar/messaging/outbox"
)

const (
	stuckKey = "stuck"
	lateKey  = "late"
)

// RunRelay is what a process of RunKilled runs: a relay over a broker that writes what it confirms to a file, and
// pauses between confirm and delete, which is when it is killed. Events of one key it refuses while a second file is
// not there.
func RunRelay(store outbox.Store, file string) error {
	return outbox.Must(outbox.NewRelay(store, witness(file), outbox.RelayConfig{Batch: 10, Lease: time.Second,
		Poll:    20 * time.Millisecond,
		Backoff: messaging.Constant(50 * time.Millisecond)})).Run(context.Background())
}

// witness is a broker that appends the ids and keys that it confirms to a file.
type witness string

func (witness) Publish(context.Context, string, any, ...messaging.Option) error {
	return errors.New("outboxtest: the relay publishes batches")
}

func (w witness) PublishBatch(_ context.Context, events []messaging.Envelope) error {
	_, free := os.Stat(string(w) + ".free")
	errs := make([]error, len(events))
	var lines strings.Builder
	for i, e := range events {
		if e.Key == stuckKey && free != nil {
			errs[i] = messaging.ErrNacked
			continue
		}
		fmt.Fprintln(&lines, e.Key, e.ID)
	}
	f, err := os.OpenFile(string(w), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteString(lines.String())
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return err
	}
	if lines.Len() > 0 {
		fmt.Fprintln(os.Stdout, "confirmed") // the test reads it
		time.Sleep(time.Duration(rand.IntN(50)) * time.Millisecond)
	}
	return driver.Batch(errs)
}

// RunKilled runs three relays, each in a process of its own that start begins, and kills them over and over between
// confirm and delete, while events of fifty keys are committed and rolled back. Every committed event must be
// published and none that was rolled back, in order within its key; a key that is stuck holds back only itself; and
// where transactions can wait, which late says, one that commits long after its events were stored is not skipped.
func RunKilled(t *testing.T, box Box, file string, late bool, start func(t *testing.T) *killtest.Process) {
	t.Helper()
	const keys, n, kills = 50, 450, 12
	e := &env{Box: box, t: t}
	goOn, latecomer := make(chan struct{}), make(chan error, 1)
	if late {
		inside := make(chan struct{})
		go func() {
			latecomer <- e.Commit(context.WithValue(t.Context(), wait{}, func() { close(inside); <-goOn }), nil,
				event("late-0", lateKey))
		}()
		select {
		case <-inside:
		case err := <-latecomer:
			t.Fatalf("the late transaction did not wait: %v", err)
		}
	}
	relays := make([]*killtest.Process, 3)
	for i := range relays {
		relays[i] = start(t)
	}
	want := map[string][]string{stuckKey: {"stuck-0", "stuck-1"}}
	e.commit(event("stuck-0", stuckKey))
	e.commit(event("stuck-1", stuckKey))
	committed := make(chan struct{})
	go func() {
		defer close(committed)
		for i := range n {
			id, key := fmt.Sprint("e", i), fmt.Sprint("k", i%keys)
			var fail error
			if i/keys%3 == 2 { // each third of a key
				fail = errBoom
			} else {
				want[key] = append(want[key], id)
			}
			if err := e.Commit(t.Context(), fail, event(id, key)); !errors.Is(err, fail) {
				t.Errorf("commit %s: %v", id, err)
			}
			time.Sleep(2 * time.Millisecond)
		}
	}()
	for i := range kills {
		p := relays[i%3]
		p.Line(t, "confirmed")
		relays[i%3] = p.Restart(t)
	}
	<-committed
	e.until("all but the stuck key", func() bool {
		c, _, err := e.Store.Pending(t.Context())
		return err == nil && c == 2
	})
	if got := published(t, file); got[stuckKey] != nil || got[lateKey] != nil {
		t.Errorf("too early: %v, %v", got[stuckKey], got[lateKey])
	}
	close(goOn)
	if late {
		want[lateKey] = []string{"late-0"}
		if err := <-latecomer; err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(file+".free", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	e.pending(0)
	for _, p := range relays {
		p.Kill()
	}
	got := published(t, file)
	for key, ids := range want {
		if !slices.Equal(got[key], ids) {
			t.Errorf("key %s: published %v, committed %v", key, got[key], ids)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d keys were published, want %d", len(got), len(want))
	}
}

type wait struct{}

// Wait is for Box.Commit: it is to be called in the transaction, after its events were stored.
func Wait(ctx context.Context) {
	if f, ok := ctx.Value(wait{}).(func()); ok {
		f()
	}
}

// published returns what was confirmed, by key, in the order of the first time; and checks that what came again did not
// come before what it follows.
func published(t *testing.T, file string) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	byKey := map[string][]string{}
	twice := 0
	for line := range strings.Lines(string(text)) {
		key, id, _ := strings.Cut(strings.TrimSpace(line), " ")
		if slices.Contains(byKey[key], id) {
			twice++
			continue
		}
		byKey[key] = append(byKey[key], id)
	}
	t.Logf("%d were published twice", twice)
	return byKey
}
