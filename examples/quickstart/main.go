// Command quickstart is a small service: products over HTTP, in a database, with logs, metrics, health and an orderly end.
//
//	go run ./examples/quickstart
//	curl -s -X POST localhost:8080/products -d '{"name":"lamp","price":4900}'
//	curl -s localhost:8080/products
//	curl -s localhost:8080/metrics | grep http_requests_total
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/sillar-go/sillar/observability"
	"github.com/sillar-go/sillar/observability/health"
	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/sqldb"
	_ "github.com/sillar-go/sillar/repository/sqldb/sqlite" // the driver of sqlite:
	"github.com/sillar-go/sillar/repository/sqlrepo"
)

// Product is stored in the table products. Meta adds id, version and times.
type Product struct {
	repository.Meta
	Name  string `json:"name"`
	Price int64  `json:"price"` // in cents
}

// price is a field to search and sort by.
var price = repository.Ord(func(p *Product) *int64 { return &p.Price })

func main() {
	l, err := net.Listen("tcp", "127.0.0.1:8080")
	if err == nil {
		fmt.Println("listening on http://" + l.Addr().String())
		err = run(context.Background(), l, "sqlite::memory:", os.Stderr)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run serves until SIGTERM, Ctrl-C or the end of ctx.
func run(ctx context.Context, l net.Listener, dsn string, log io.Writer) error {
	tel, err := observability.Setup(ctx, observability.Config{Service: "products", LogWriter: log})
	if err != nil {
		return err
	}
	db, err := sqldb.Open(ctx, dsn, sqldb.Config{}) // or postgres://...
	if err != nil {
		return err
	}
	schema, err := sqlrepo.Schema[Product](db.Dialect(), "products")
	if err == nil {
		err = db.Exec(ctx, schema) // a released service migrates with package sqldb/migrate
	}
	if err != nil {
		return errors.Join(err, db.Close())
	}
	products := sqlrepo.Must(sqlrepo.New[Product](db, sqlrepo.Config{Table: "products"}))
	state := health.Must(health.New(health.Config{}))
	state.Add("database", db.Ping)

	mux := tel.Mux()
	state.Register(mux)
	mux.Handle("GET /metrics", tel.MetricsHandler())
	mux.HandleFunc("POST /products", create(products))
	mux.HandleFunc("GET /products", list(products))
	srv := &http.Server{Handler: state.CloseConnections(tel.Middleware(mux)), ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			failed <- err
			stop()
		}
	}()
	err = health.Run(ctx, health.Drain{Health: state, Logger: tel.Logger},
		health.Phase{Name: "http", Stop: srv.Shutdown},
		health.Phase{Name: "database", Stop: func(context.Context) error { return db.Close() }},
		health.Phase{Name: "telemetry", Stop: tel.Shutdown})
	select {
	case failure := <-failed:
		return errors.Join(failure, err)
	default:
		return err
	}
}

func create(products repository.Repository[Product]) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var p Product
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&p); err != nil || p.Name == "" || p.Price < 0 {
			http.Error(w, "a name and a price of 0 or more are needed", http.StatusUnprocessableEntity)
			return
		}
		p.Meta = repository.Meta{} // id and version are the repository's to set
		created, err := products.Create(r.Context(), p)
		answer(w, http.StatusCreated, created, err)
	}
}

func list(products repository.Repository[Product]) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		page, err := products.Find(r.Context(), repository.Query[Product]{
			Sort: []repository.Sort[Product]{price.Asc()}, Limit: 50, After: r.URL.Query().Get("after"),
		})
		answer(w, http.StatusOK, page, err)
	}
}

func answer(w http.ResponseWriter, status int, body any, err error) {
	if errors.Is(err, repository.ErrCursor) {
		http.Error(w, "the cursor is not valid", http.StatusBadRequest)
		return
	}
	if err != nil {
		http.Error(w, "try again", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client may have left
}
