// Command quickstart is a small service: products over HTTP, in a database, with logs, metrics, health and an orderly
// end.
//
//	go run ./examples/quickstart
//	curl -s --json '{"name":"lamp","price":4900}' localhost:8080/products
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

	"github.com/sillar-go/sillar/gateway/problem"
	"github.com/sillar-go/sillar/observability"
	"github.com/sillar-go/sillar/observability/service"
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
	run := service.Must(service.New(service.Config{Name: "products", Logger: tel.Logger}))
	run.Close("telemetry", tel.Shutdown)
	run.Close("database", func(context.Context) error { return db.Close() })
	run.Health().Add("database", db.Ping)

	mux := tel.Mux()
	run.Health().Register(mux)
	mux.Handle("GET /metrics", tel.MetricsHandler())
	mux.HandleFunc("POST /products", create(products))
	mux.HandleFunc("GET /products", list(products))
	run.HTTP(l, &http.Server{Handler: tel.Middleware(mux), ReadHeaderTimeout: 10 * time.Second})
	return run.Run(ctx)
}

// problems are the answers to errors, in the form of RFC 9457. What is not among them is logged, and is a 500.
var problems = problem.NewMapper(
	problem.Rule{Err: repository.ErrCursor, Status: http.StatusBadRequest, Slug: "query",
		Detail: "the cursor is not valid"},
	problem.Rule{Err: sqldb.ErrBusy, Status: http.StatusServiceUnavailable, Slug: "busy", Detail: "try again"},
)

func create(products repository.Repository[Product]) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			Name  string `json:"name"`
			Price int64  `json:"price"`
		}
		err := problem.Decode(w, r, &in, 0)
		if err == nil && (in.Name == "" || in.Price < 0) {
			err = problem.New(http.StatusUnprocessableEntity, "validation", "a name and a price of 0 or more are needed")
		}
		var created Product
		if err == nil {
			created, err = products.Create(r.Context(), Product{Name: in.Name, Price: in.Price})
		}
		answer(w, r, http.StatusCreated, created, err)
	}
}

func list(products repository.Repository[Product]) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		page, err := products.Find(r.Context(), repository.Query[Product]{
			Sort: []repository.Sort[Product]{price.Asc()}, Limit: 50, After: r.URL.Query().Get("after"),
		})
		answer(w, r, http.StatusOK, page, err)
	}
}

func answer(w http.ResponseWriter, r *http.Request, status int, body any, err error) {
	if err != nil {
		problems.Write(r.Context(), w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client may have left
}
