package benchmarks

import (
	"context"
	"fmt"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/sqldb"
	_ "github.com/sillar-go/sillar/repository/sqldb/sqlite"
	"github.com/sillar-go/sillar/repository/sqlrepo"
)

// gormBook and the functions below are the left side of docs/coming-from-gorm.md. They are compiled and not run.
type gormBook struct {
	ID        string `gorm:"primaryKey"`
	Title     string
	ISBN      string `gorm:"uniqueIndex"`
	Cents     int64
	Stock     int64
	Version   int64
	CreatedAt time.Time
	UpdatedAt time.Time
}

var _ = []any{gormFind, gormSell, gormUpsert, gormRaise, gormOrder}

func gormFind(ctx context.Context, db *gorm.DB, after string) ([]gormBook, error) {
	var books []gormBook
	err := db.WithContext(ctx).
		Where("cents >= ? AND title LIKE ?", 1000, "L%").
		Where("id > ?", after).Order("id").Limit(50).
		Find(&books).Error
	return books, err
}

func gormSell(ctx context.Context, db *gorm.DB, id string) error {
	return db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		var b gormBook
		if err := tx.Clauses(clause.Locking{Strength: "UPDATE"}).First(&b, "id = ?", id).Error; err != nil {
			return err // gorm.ErrRecordNotFound
		}
		if b.Stock == 0 {
			return errSoldOut
		}
		b.Stock--
		return tx.Save(&b).Error
	})
}

func gormUpsert(ctx context.Context, db *gorm.DB, b gormBook) error {
	return db.WithContext(ctx).Clauses(clause.OnConflict{UpdateAll: true}).Create(&b).Error
}

func gormRaise(ctx context.Context, db *gorm.DB) (int64, error) {
	res := db.WithContext(ctx).Model(&gormBook{}).Where("stock = 0").Update("cents", 1)
	return res.RowsAffected, res.Error
}

func gormOrder(ctx context.Context, db *gorm.DB, b gormBook) error {
	return db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		if err := tx.Create(&b).Error; err != nil {
			return err
		}
		return tx.Exec("INSERT INTO log (text) VALUES (?)", b.Title).Error
	})
}

var errSoldOut = fmt.Errorf("sold out")

type Book struct {
	repository.Meta
	Title string
	ISBN  string
	Cents int64
	Stock int64
}

var (
	title = repository.Text(func(b *Book) *string { return &b.Title })
	isbn  = repository.Text(func(b *Book) *string { return &b.ISBN })
	cents = repository.Ord(func(b *Book) *int64 { return &b.Cents })
	stock = repository.Ord(func(b *Book) *int64 { return &b.Stock })
)

// Example_comingFromGorm is the right side of docs/coming-from-gorm.md.
func Example_comingFromGorm() {
	ctx := context.Background()
	db, err := sqldb.Open(ctx, "sqlite::memory:", sqldb.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer db.Close()
	schema, err := sqlrepo.Schema[Book](db.Dialect(), "books", []string{"isbn"})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := db.Exec(ctx, schema+"CREATE TABLE log (text TEXT)"); err != nil { // programs do this with package migrate
		fmt.Println(err)
		return
	}
	books, err := sqlrepo.New[Book](db, sqlrepo.Config{Table: "books"})
	if err != nil {
		fmt.Println(err)
		return
	}
	lamp, err := books.Create(ctx, Book{Title: "Lamps", ISBN: "1", Cents: 1990, Stock: 1})
	if err != nil {
		fmt.Println(err)
		return
	}

	page, err := books.Find(ctx, repository.Query[Book]{
		Where: cents.Gte(1000).And(title.HasPrefix("L")),
		Limit: 50,
		After: "", // page.Next of the page before
	})
	fmt.Println(len(page.Items), page.Next == "", err)

	sold, err := books.Update(ctx, lamp.ID, func(_ context.Context, b *Book) error {
		if b.Stock == 0 {
			return errSoldOut
		}
		b.Stock--
		return nil // repository.ErrNotFound where there is none
	})
	fmt.Println(sold.Stock, sold.Version, err)

	b, err := books.Put(ctx, Book{Meta: repository.Meta{ID: lamp.ID}, Title: "More lamps", ISBN: "1"})
	fmt.Println(b.Version, err)

	n, err := books.UpdateWhere(ctx, stock.Eq(0), cents.To(1))
	fmt.Println(n, err)

	err = db.InTx(ctx, func(ctx context.Context) error {
		b, err := books.Create(ctx, Book{Title: "Desks", ISBN: "2"})
		if err != nil {
			return err
		}
		_, err = db.Querier(ctx).Exec(ctx, "INSERT INTO log (text) VALUES ($1)", b.Title)
		return err
	})
	fmt.Println(err)

	desks, err := repository.One(ctx, books, isbn.Eq("2"))
	fmt.Println(desks.Title, err)
	// Output:
	// 1 true <nil>
	// 0 2 <nil>
	// 3 <nil>
	// 1 <nil>
	// <nil>
	// Desks <nil>
}
