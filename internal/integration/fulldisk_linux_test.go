package integration

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/memory"
	"github.com/sillar-go/sillar/messaging/outbox"
	"github.com/sillar-go/sillar/repository/sqldb"
	"github.com/sillar-go/sillar/saga"
)

// privileged is a command as root: by sudo, where this is another user.
func privileged(ctx context.Context, name string, args ...string) *exec.Cmd {
	if os.Getuid() != 0 {
		return exec.CommandContext(ctx, "sudo", append([]string{"-n", name}, args...)...)
	}
	return exec.CommandContext(ctx, name, args...)
}

// smallDisk mounts a file system of so many megabytes.
func smallDisk(t *testing.T, megabytes int) (dir string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "sillar-disk") //nolint:usetesting // another user must reach it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	options := fmt.Sprintf("mode=1777,size=%dm", megabytes)
	out, err := privileged(t.Context(), "mount", "-t", "tmpfs", "-o", options, "none", dir).CombinedOutput()
	if err != nil {
		testenv.Missing(t, fmt.Sprintf("a small disk cannot be mounted: run as root, or let sudo mount without a password "+
			"(in a container: --cap-add SYS_ADMIN): %v: %s", err, out))
	}
	t.Cleanup(func() { _ = privileged(context.WithoutCancel(t.Context()), "umount", "-l", dir).Run() })
	return dir
}

// fill leaves so many bytes of the disk's room, and returns what makes room again.
func fill(t *testing.T, dir string, left int64) (free func()) {
	t.Helper()
	name := filepath.Join(dir, "ballast")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var n int64
	for piece := make([]byte, 64<<10); err == nil; n += int64(len(piece)) {
		_, err = f.Write(piece)
	}
	if err := f.Truncate(n - left); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(name); err != nil {
			t.Error(err)
		}
	}
}

// PostgreSQL's disk fills up while transactions store entities, events and sagas: it has no room for rows. What was
// refused has left nothing, and what was committed is published and runs to its end as soon as there is room again,
// without a restart.
func TestFullDiskUnderPostgreSQLLosesNothing(t *testing.T) {
	dir := smallDisk(t, 200)
	p := open(t, testenv.PostgresAt(t, dir).URL("postgres"))
	place := func(id string) error {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		return p.place(ctx, id)
	}
	placed := map[string]bool{}
	broker := memory.Must(memory.New(memory.Config{Source: "test", Logger: quiet}))
	defer broker.Close()
	s, err := broker.Subscribe(t.Context(), messaging.Subscription{Group: "g", Patterns: []string{"placed"},
		Prefetch: 1000})
	if err != nil {
		t.Fatal(err)
	}
	free := fill(t, dir, 1<<20)
	var refusal error
	for i := 0; refusal == nil; i++ {
		if i == 20_000 {
			t.Fatal("the disk does not fill up")
		}
		id := fmt.Sprint("trip-", i)
		if refusal = place(id); refusal == nil {
			placed[id] = true
		}
	}
	t.Logf("after %d transactions: %v", len(placed), refusal)
	if state := sqldb.SQLState(refusal); state != "53100" { // disk_full
		t.Errorf("the refusal is SQLSTATE %q, want 53100", state)
	}
	ctx, stop := context.WithCancel(t.Context())
	relay := outbox.Must(outbox.NewRelay(p.outbox, broker, outbox.RelayConfig{Logger: quiet, Poll: 20 * time.Millisecond}))
	done := make(chan error, 2)
	go func() { done <- relay.Run(ctx) }() // relay and orchestrator meet the full disk, too
	go func() { done <- p.sagas.Run(ctx) }()
	refused := 0
	for i := range 50 {
		if id := fmt.Sprint("full-", i); place(id) == nil {
			placed[id] = true
		} else {
			refused++
		}
	}
	if refused == 0 {
		t.Error("none of 50 more was refused")
	}

	free()
	within, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := place("after"); err != nil {
		t.Fatalf("there is room again: %v", err)
	}
	placed["after"] = true
	for reported := map[string]bool{}; len(reported) < len(placed); {
		d, err := s.Receive(within)
		if err != nil {
			t.Fatalf("%d of %d events were published, then %v", len(reported), len(placed), err)
		}
		if err := d.Ack(within); err != nil {
			t.Fatal(err)
		}
		if id := d.Envelope().ID; placed[id] {
			reported[id] = true
		} else {
			t.Errorf("%s was refused, and published", id)
		}
	}
	for id := range placed {
		for r := (saga.Record{}); r.Status != saga.Completed; time.Sleep(5 * time.Millisecond) {
			if r, err = p.sagas.Get(t.Context(), id); err != nil || within.Err() != nil {
				t.Fatalf("saga %s: %+v, %v", id, r, err)
			}
		}
	}
	for _, table := range []string{"products", "sillar_sagas"} {
		var n int
		err := p.db.Querier(t.Context()).QueryRow(t.Context(), "SELECT count(*) FROM "+table).Scan(&n)
		if err != nil || n != len(placed) {
			t.Errorf("%d rows of %s for %d transactions that were committed, %v", n, table, len(placed), err)
		}
	}
	stop()
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
