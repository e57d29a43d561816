package health

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func ask(t *testing.T, h http.Handler, url string) (int, Report) {
	t.Helper()
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest("GET", url, nil))
	var rep Report
	if err := json.Unmarshal(rec.Body.Bytes(), &rep); err != nil {
		t.Fatal(err)
	}
	return rec.Code, rep
}

func TestStatesAnswerTheProbes(t *testing.T) {
	var db, cache error
	h := Must(New(Config{Service: "orders", CacheFor: -1, Details: true}))
	h.Add("db", func(context.Context) error { return db })
	h.Add("cache", func(context.Context) error { return cache }, Degraded())
	boom := errors.New("boom")
	for _, c := range []struct {
		db, cache error
		code      int
		status    string
	}{
		{nil, nil, 200, "up"}, {nil, boom, 200, "degraded"}, {boom, nil, 503, "down"}, {boom, boom, 503, "down"},
	} {
		db, cache = c.db, c.cache
		code, rep := ask(t, h.Ready(), "/ready?verbose")
		if code != c.code || rep.Status != c.status || len(rep.Checks) != 2 || rep.Service != "orders" {
			t.Errorf("%+v: %d %+v", c, code, rep)
		}
		if code, rep := ask(t, h.Ready(), "/ready"); code != c.code || rep.Checks != nil {
			t.Errorf("%+v: not verbose: %d %+v", c, code, rep)
		}
		if code, _ := ask(t, h.Health(), "/health?verbose=1"); code != 200 {
			t.Errorf("%+v: alive: %d", c, code)
		}
	}
	db = nil
	h.Drain()
	if code, rep := ask(t, h.Ready(), "/ready"); code != 503 || rep.Status != "draining" {
		t.Errorf("draining: %d %+v", code, rep)
	}
}

func TestErrorsStayInside(t *testing.T) {
	h := Must(New(Config{}))
	h.Add("db", func(context.Context) error { return errors.New("postgres://user:hush@db") })
	h.Add("p", func(context.Context) error { panic("hush") })
	rec := httptest.NewRecorder()
	h.Ready().ServeHTTP(rec, httptest.NewRequest("GET", "/ready?verbose", nil))
	if strings.Contains(rec.Body.String(), "hush") || rec.Code != 503 {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
}

func TestChecksAreCachedAndBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := Must(New(Config{Timeout: time.Second, CacheFor: 5 * time.Second, Details: true}))
		checkCaching(t, h)

		h.Add("slow", func(context.Context) error { return nil })
		release := make(chan struct{})
		var started atomic.Int64
		h.Add("hangs", func(context.Context) error { started.Add(1); <-release; return nil })
		before := time.Now()
		for range 10 {
			rep := h.Report(t.Context())
			if rep.Status != "down" || rep.Checks[0].Error != ErrHung.Error() {
				t.Errorf("hung: %+v", rep)
			}
			time.Sleep(6 * time.Second)
		}
		if n := started.Load(); n != 1 {
			t.Errorf("a hung check was started %d times", n)
		}
		if d := time.Since(before); d > 62*time.Second {
			t.Errorf("asking took %s", d)
		}
		close(release)
		synctest.Wait()
		if rep := h.Report(t.Context()); rep.Status != "up" {
			t.Errorf("after it returned: %+v", rep)
		}
	})
}

// checkCaching counts the runs of a slow check that many ask for.
func checkCaching(t *testing.T, h *Health) {
	t.Helper()
	var runs atomic.Int64
	h.Add("slow", func(ctx context.Context) error {
		runs.Add(1)
		time.Sleep(500 * time.Millisecond)
		return nil
	})
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() { h.Report(t.Context()) })
	}
	wg.Wait()
	if n := runs.Load(); n != 1 {
		t.Errorf("%d runs for 50 askers", n)
	}
	time.Sleep(6 * time.Second)
	h.Report(t.Context())
	if n := runs.Load(); n != 2 {
		t.Errorf("%d runs after the cache's time", n)
	}
}

var quiet = slog.New(slog.DiscardHandler)

// A bound of 0 is the default here as everywhere.
func TestTimeoutOfACheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := Must(New(Config{Timeout: time.Second, CacheFor: -1}))
		for bound, want := range map[time.Duration]string{0: "up", -1: "up", time.Millisecond: "down", time.Minute: "up"} {
			h.Add("slow", func(ctx context.Context) error {
				select {
				case <-time.After(500 * time.Millisecond):
				case <-ctx.Done():
				}
				return ctx.Err()
			}, Timeout(bound))
			if rep := h.Report(t.Context()); rep.Status != want {
				t.Errorf("%s: %s, want %s", bound, rep.Status, want)
			}
		}
	})
}

func TestRunDrainsInPhases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := Must(New(Config{}))
		signals := make(chan os.Signal, 2)
		start := time.Now()
		var order []string
		step := func(name string, takes time.Duration, err error) Phase {
			return Phase{Name: name, Timeout: 2 * time.Second, Stop: func(ctx context.Context) error {
				if !h.Draining() {
					t.Error("a phase began while the service was ready")
				}
				order = append(order, name+time.Since(start).String())
				time.Sleep(takes)
				return err
			}}
		}
		boom := errors.New("boom")
		go func() {
			time.Sleep(time.Minute)
			signals <- syscall.SIGTERM
			synctest.Wait()
			if code, _ := ask(t, h.Ready(), "/ready"); code != 503 {
				t.Errorf("ready after the signal: %d", code)
			}
		}()
		err := Run(t.Context(), Drain{Health: h, Delay: 5 * time.Second, Logger: quiet, signals: signals},
			step("http", time.Second, nil), step("consumers", time.Second, boom),
			Phase{Name: "stuck", Timeout: time.Second, Stop: func(context.Context) error {
				time.Sleep(1500 * time.Millisecond)
				return nil
			}},
			Phase{Name: "panics", Stop: func(context.Context) error { panic("x") }},
			step("telemetry", 0, nil))
		if !errors.Is(err, boom) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "panics") {
			t.Errorf("error: %v", err)
		}
		if want := []string{"http1m5s", "consumers1m6s", "telemetry1m8.05s"}; !slices.Equal(order, want) {
			t.Errorf("order %v, want %v", order, want)
		}
		time.Sleep(time.Second) // the stuck phase ends
	})
}

func TestSecondSignalExits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signals := make(chan os.Signal, 2)
		code := -1
		signals <- syscall.SIGTERM
		go func() { time.Sleep(time.Second); signals <- syscall.SIGINT }()
		err := Run(t.Context(), Drain{Logger: quiet, signals: signals, exit: func(c int) { code = c }},
			Phase{Name: "http", Timeout: 20 * time.Second, Stop: func(ctx context.Context) error { <-ctx.Done(); return nil }})
		if code != 1 || err == nil {
			t.Errorf("exit %d, %v", code, err)
		}
		time.Sleep(30 * time.Second)
	})
}

func TestRunByContextAndGrace(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	ran := false
	err := Run(ctx, Drain{NoSignals: true, Logger: quiet}, Phase{Name: "p", Stop: func(ctx context.Context) error {
		ran = true
		return ctx.Err()
	}})
	if err != nil || !ran {
		t.Errorf("ran %v: %v", ran, err)
	}
	err = Run(t.Context(), Drain{NoSignals: true, Grace: 10 * time.Second, Delay: 5 * time.Second, Logger: quiet},
		Phase{Name: "p", Timeout: 6 * time.Second, Stop: func(context.Context) error { return nil }})
	if !errors.Is(err, ErrGrace) {
		t.Errorf("grace: %v", err)
	}
}

func TestRealSignal(t *testing.T) {
	other := make(chan os.Signal, 1) // or an early signal would end the test's process
	signal.Notify(other, syscall.SIGTERM)
	defer signal.Stop(other)
	h := Must(New(Config{}))
	var wg sync.WaitGroup
	wg.Go(func() {
		for !h.Draining() {
			_ = syscall.Kill(os.Getpid(), syscall.SIGTERM)
			time.Sleep(20 * time.Millisecond)
		}
	})
	err := Run(t.Context(), Drain{Health: h, Logger: quiet, exit: func(int) {}})
	wg.Wait()
	if !h.Draining() || err != nil && !strings.Contains(err.Error(), "second signal") {
		t.Error(err)
	}
}

// While the service drains, clients are asked to open their next connection elsewhere.
func TestCloseConnectionsWhileDraining(t *testing.T) {
	h := Must(New(Config{}))
	srv := httptest.NewServer(h.CloseConnections(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("ok"))
	})))
	defer srv.Close()
	for _, draining := range []bool{false, true} {
		if draining {
			h.Drain()
		}
		res, err := srv.Client().Get(srv.URL)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.Close != draining {
			t.Errorf("draining: %v, the answer closes the connection: %v", draining, res.Close)
		}
	}
}
