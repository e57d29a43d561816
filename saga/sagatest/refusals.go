package sagatest

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sillar-go/sillar/saga"
)

// What a store cannot hold is ErrUnstorable or is held as it is; and it fails alone.

// huge returns JSON that the store cannot hold, if there is any.
func (f Features) huge() []byte { return []byte(`"` + strings.Repeat("x", f.TooLarge) + `"`) }

// impossible are texts that some database refuses.
var impossible = []string{"bad\xff", "bad\x00", "\x00", "\xff\xfe"}

func insertRefusedAlone(t *testing.T, s saga.Store, f Features) {
	var wg sync.WaitGroup
	try := func(r saga.Record, refusable bool) {
		wg.Go(func() {
			_, inserted, err := s.Insert(t.Context(), r)
			if refusable && errors.Is(err, saga.ErrUnstorable) {
				return
			}
			if err != nil || !inserted {
				t.Errorf("Insert %.20q: %v, %.200v", r.ID, inserted, err)
				return
			}
			if stored, err := s.Get(t.Context(), r.ID); err != nil || !bytes.Equal(stored.State, r.State) {
				t.Errorf("Get %.20q: %d bytes of state, %.200v, want what was inserted", r.ID, len(stored.State), err)
			}
		})
	}
	for i := range 40 {
		r := record(fmt.Sprint("s", i))
		r.Headers["sillar-attribute-customer"] = fmt.Sprint(i)
		try(r, false)
		switch {
		case i < len(impossible):
			try(record(impossible[i]), true)
		case i < 2*len(impossible):
			r := record(fmt.Sprint("attribute", i))
			r.Headers["sillar-attribute-a"] = impossible[i-len(impossible)]
			try(r, true)
		case i == 10:
			r := record("huge")
			r.State = f.huge()
			try(r, true)
		}
	}
	wg.Wait()
}

func saveRefusedAlone(t *testing.T, s saga.Store, f Features) {
	lease(t, s, "n", time.Minute)
	for i := range 20 {
		insert(t, s, record(fmt.Sprintf("s%02d", i)))
	}
	var wg sync.WaitGroup
	for i, c := range claim(t, s, "n", 20) {
		wg.Go(func() {
			r := c.Clone()
			r.State = fmt.Appendf(nil, `{"n":%d}`, i)
			switch i {
			case 3:
				r.State = []byte("\"\xff\"")
			case 5:
				r.State = []byte("\"\x00\"")
			case 7:
				r.State = f.huge()
			}
			err := s.Save(t.Context(), r)
			if (i == 3 || i == 5 || i == 7) && errors.Is(err, saga.ErrUnstorable) {
				r = c.Record // as it was
			} else if err != nil {
				t.Errorf("Save %d: %.200v", i, err)
				return
			}
			if stored, err := s.Get(t.Context(), r.ID); err != nil || !bytes.Equal(stored.State, r.State) {
				t.Errorf("Get %d: %d bytes of state, %.200v, want what was saved last", i, len(stored.State), err)
			}
		})
	}
	wg.Wait()
}

func signalRefused(t *testing.T, s saga.Store, f Features) {
	insert(t, s, record("x"))
	later := record("y")
	later.WakeAt = time.Now().Add(time.Hour)
	insert(t, s, later)
	for _, name := range append([]string{"huge"}, impossible...) {
		id, raw := "x", []byte(`1`)
		if name == "huge" {
			id, raw = "y", f.huge()
		}
		first, err := s.Signal(t.Context(), id, name, payload(string(raw)))
		if errors.Is(err, saga.ErrUnstorable) {
			continue
		}
		if err != nil || !first {
			t.Errorf("Signal %q: %v, %.200v", name, first, err)
		} else if got := get(t, s, id); !bytes.Equal(got.Signals[name], raw) {
			t.Errorf("Signal %q: %.50q is stored", name, got.Signals[name])
		}
	}
	if _, err := s.Signal(t.Context(), "x", "go", payload(`1`)); err != nil {
		t.Errorf("Signal after those that were refused: %v", err)
	}
	lease(t, s, "n", time.Minute)
	for _, c := range claim(t, s, "n", 2) {
		if c.ID == "x" && string(c.Signals["go"]) != `1` {
			t.Errorf("claimed with the signals %.100q, want the last one, too", c.Signals)
		}
	}
}

// lookedUpInVain asks for what no store of ids that a caller may give can hold: nothing is found, and nothing fails.
func lookedUpInVain(t *testing.T, s saga.Store, _ Features) {
	insert(t, s, record("x"))
	for _, id := range append([]string{"", strings.Repeat("x", 10_000)}, impossible...) {
		if _, err := s.Get(t.Context(), id); !errors.Is(err, saga.ErrNotFound) {
			t.Errorf("Get %.20q: %v, want ErrNotFound", id, err)
		}
		if _, err := s.Signal(t.Context(), id, "go", payload(`1`)); !errors.Is(err, saga.ErrNotFound) {
			t.Errorf("Signal of %.20q: %v, want ErrNotFound", id, err)
		}
		if err := s.Delete(t.Context(), id); !errors.Is(err, saga.ErrNotFound) {
			t.Errorf("Delete %.20q: %v, want ErrNotFound", id, err)
		}
		if id == "" {
			continue // it selects all
		}
		for _, c := range []struct {
			f    saga.Filter
			want int
		}{
			{saga.Filter{Name: id}, 0},
			{saga.Filter{IDs: []string{id}}, 0},
			{saga.Filter{IDs: []string{"x", id}}, 1},
			{saga.Filter{Attribute: id, Value: "1"}, 0},
			{saga.Filter{Attribute: "a", Value: id}, 0},
			{saga.Filter{Statuses: []saga.Status{saga.Status(id)}}, 0},
			{saga.Filter{Since: time.Now().Add(time.Hour), After: id}, 0},
		} {
			list, err := s.List(t.Context(), c.f)
			n, cerr := s.Count(t.Context(), c.f)
			if len(list) != c.want || n != c.want || err != nil || cerr != nil {
				t.Errorf("List %.60q: %d sagas, %v; Count: %d, %v", fmt.Sprint(c.f), len(list), err, n, cerr)
			}
		}
		if shapes, err := s.Shapes(t.Context(), saga.Kind{Name: id, Version: 1}); len(shapes) != 0 || err != nil {
			t.Errorf("Shapes of %.20q: %v, %v", id, shapes, err)
		}
	}
}
