// Command saga shows an order over two services that survives a crash in between. The process that places the order is
// killed after the stock service has reserved, before it could note that. Another one takes over and repeats the step:
// the barrier of the stock service sees that it was done. A second order is declined, and what it reserved is released.
//
//	go run ./examples/saga
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/sillar-go/sillar/breaker"
	"github.com/sillar-go/sillar/breaker/breakerhttp"
	"github.com/sillar-go/sillar/repository/sqldb"
	_ "github.com/sillar-go/sillar/repository/sqldb/sqlite" // the driver of sqlite:
	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/barrier"
	"github.com/sillar-go/sillar/saga/sagasql"
)

// Order is the state of the saga.
type Order struct {
	Item string `json:"item"`
}

func main() {
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	work := run
	if os.Getenv("SAGA_STOCK") != "" {
		work = crash
	}
	if err := work(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		stop()
		os.Exit(1) //nolint:gocritic // stop has run
	}
}

// stock is the participant: it reserves and releases one piece, once for each idempotency key.
func stock(db *sqldb.DB, marks *barrier.Barrier) http.Handler {
	change := func(by int, done string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			err := db.InTx(r.Context(), func(ctx context.Context) error {
				return marks.Do(ctx, r.Header.Get("Idempotency-Key"), func(ctx context.Context) error {
					fmt.Println("stock:", done, r.PathValue("item"))
					_, err := db.Querier(ctx).Exec(ctx, "UPDATE stock SET pieces = pieces + $1 WHERE item = $2", by,
						r.PathValue("item"))
					return err
				})
			})
			if err != nil {
				http.Error(w, "not now", http.StatusInternalServerError)
			}
		}
	}
	mux := http.NewServeMux()
	mux.Handle("POST /{item}/reserve", change(-1, "reserved"))
	mux.Handle("POST /{item}/release", change(+1, "released"))
	return mux
}

// orders returns an orchestrator over the sagas in db. Where it crashes, the process ends after the reservation.
func orders(ctx context.Context, db *sqldb.DB, stockURL string, crashes bool) (*saga.Orchestrator, *saga.Def[Order]) {
	client := breakerhttp.Must(breakerhttp.NewTransport(nil,
		breakerhttp.Config{Breaker: breaker.Config{Timeout: time.Second}}))
	call := func(what string) saga.Handler[Order] {
		return func(ctx context.Context, c *saga.Call, o *Order) error {
			target := stockURL + "/" + o.Item + "/" + what
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, nil) //nolint:gosec // the shop's own items
			if err != nil {
				return saga.Reject(err)
			}
			req.Header.Set("Idempotency-Key", c.Key())
			res, err := client.RoundTrip(req)
			if err != nil {
				return err // in doubt, or not attempted where the breaker is open
			}
			defer res.Body.Close()
			if crashes {
				os.Exit(3) // as by SIGKILL: nothing is stored, no lease is given back
			}
			return saga.HTTPError(res.StatusCode, 0, errors.New(res.Status))
		}
	}
	pay := func(_ context.Context, _ *saga.Call, o *Order) error {
		if o.Item == "rug" {
			return saga.Reject(errors.New("card declined"))
		}
		return nil
	}
	place := saga.Define("place-order", 1, saga.Step("reserve", call("reserve")).Compensate(call("release")),
		saga.Pivot("pay", pay))
	store := sagasql.Must(sagasql.New(db, sagasql.Config{}))
	_ = saga.Must(struct{}{}, store.EnsureSchema(ctx))
	cfg := saga.Config{Lease: 2 * time.Second, Poll: 100 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)}
	return saga.Must(saga.New(store, cfg, place)), place
}

// crash is the process that is killed while it places the order.
func crash(ctx context.Context, _ io.Writer) error {
	db := sqldb.Must(sqldb.Open(ctx, "sqlite:"+os.Getenv("SAGA_FILE"), sqldb.Config{}))
	o, place := orders(ctx, db, os.Getenv("SAGA_STOCK"), true)
	saga.Must(place.Start(ctx, o, "order-1", Order{"lamp"}))
	return o.Run(ctx)
}

func run(ctx context.Context, out io.Writer) error {
	file := filepath.Join(saga.Must(os.MkdirTemp("", "saga")), "sagas.db")
	defer os.RemoveAll(filepath.Dir(file))
	db := sqldb.Must(sqldb.Open(ctx, "sqlite::memory:", sqldb.Config{}))
	defer db.Close()
	marks := barrier.Must(barrier.New(db, barrier.Config{}))
	err := db.Exec(ctx,
		"CREATE TABLE stock (item TEXT, pieces INTEGER); INSERT INTO stock VALUES ('lamp', 10), ('rug', 10)")
	if err := errors.Join(err, marks.EnsureSchema(ctx)); err != nil {
		return err
	}
	srv := httptest.NewServer(stock(db, marks))
	defer srv.Close()

	child := exec.CommandContext(ctx, os.Args[0]) //nolint:gosec // this program
	child.Env = append(os.Environ(), "SAGA_FILE="+file, "SAGA_STOCK="+srv.URL)
	_, _ = fmt.Fprintln(out, "the first process:", child.Run())

	sagas := sqldb.Must(sqldb.Open(ctx, "sqlite:"+file, sqldb.Config{}))
	defer sagas.Close()
	o, place := orders(ctx, sagas, srv.URL, false)
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- o.Run(running) }()
	_, err = place.Handle(o, "order-1").Wait(ctx) // taken over when the lease of the first process has expired
	_, _ = fmt.Fprintln(out, "order-1:", err)
	_, err = saga.Must(place.Start(ctx, o, "order-2", Order{"rug"})).Wait(ctx)
	_, _ = fmt.Fprintln(out, "order-2:", err)
	stop()
	for _, item := range []string{"lamp", "rug"} {
		var pieces int64
		if err := db.Querier(ctx).QueryRow(ctx, "SELECT pieces FROM stock WHERE item = $1", item).Scan(&pieces); err != nil {
			return err
		}
		_, _ = fmt.Fprintln(out, item+"s in stock:", pieces)
	}
	return <-ended
}
