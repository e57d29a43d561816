package main

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"testing"

	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/sqldb"
	"github.com/sillar-go/sillar/repository/sqldb/sqldbtest"
	_ "github.com/sillar-go/sillar/repository/sqldb/sqlite"
	"github.com/sillar-go/sillar/repository/sqlrepo"
)

// Ten customers buy three pieces on SQLite, whose statements and commits fail: one connector serves all that is kept
// there.
func TestTheLastOneIsSoldOnceOnAFaultyDatabase(t *testing.T) {
	for seed := range uint64(20) {
		db := sqldb.Must(sqldb.Open(t.Context(), "sqlite::memory:", sqldb.Config{
			WrapConnector: func(c driver.Connector) driver.Connector { return sqldbtest.Faulty(c, seed, 0.2) },
		}))
		defer db.Close()
		schema, err := sqlrepo.Schema[Product](sqldb.SQLite, "products")
		if err != nil {
			t.Fatal(err)
		}
		again(func() error { return db.Exec(t.Context(), schema) })
		shop := &Shop{sqlrepo.Must(sqlrepo.New[Product](db, sqlrepo.Config{Table: "products"})), freeOfCharge{}}
		lamp := Product{Meta: repository.Meta{ID: "lamp"}, Stock: 3}
		again(func() error { _, err := shop.Products.Put(t.Context(), lamp); return err })
		sold := 0
		for i := range 10 {
			again(func() error {
				err = shop.Reserve(t.Context(), "lamp", fmt.Sprint("order-", i))
				if errors.Is(err, ErrSoldOut) {
					return nil
				}
				return err
			})
			if err == nil {
				sold++
			}
		}
		again(func() error { lamp, err = shop.Products.Get(t.Context(), "lamp"); return err })
		if sold != 3 || lamp.Stock != 0 {
			t.Errorf("seed %d: %d were sold, %d are left, want 3 and 0", seed, sold, lamp.Stock)
		}
	}
}

// again repeats what fails by an injected fault.
func again(run func() error) {
	for errors.Is(run(), sqldbtest.ErrInjected) {
		continue
	}
}
