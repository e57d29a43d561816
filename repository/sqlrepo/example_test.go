package sqlrepo_test

import (
	"context"
	"fmt"

	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/sqldb"
	"github.com/sillar-go/sillar/repository/sqlrepo"
)

type user struct {
	repository.Meta
	Email string
	Age   int
}

var (
	email = repository.Text(func(u *user) *string { return &u.Email })
	age   = repository.Ord(func(u *user) *int { return &u.Age })
)

func Example() {
	ctx := context.Background()
	db := sqldb.Must(sqldb.Open(ctx, "sqlite::memory:", sqldb.Config{})) // or postgres://...
	defer db.Close()
	schema, err := sqlrepo.Schema[user](db.Dialect(), "users", []string{"email"}) // for the program's migrations
	if err == nil {
		err = db.Exec(ctx, schema)
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	users := sqlrepo.Must(sqlrepo.New[user](db, sqlrepo.Config{Table: "users"}))
	for i, name := range []string{"ana", "ben", "cleo"} {
		if _, err := users.Create(ctx, user{Email: name + "@example.com", Age: 30 + i}); err != nil {
			fmt.Println(err)
		}
	}
	_, err = users.Create(ctx, user{Email: "ana@example.com"})
	fmt.Println(err)
	for u, err := range users.Each(ctx, repository.Query[user]{Where: age.Gt(30).And(repository.Not(email.HasPrefix("x"))),
		Sort: []repository.Sort[user]{age.Desc()}}) {
		fmt.Println(u.Email, u.Version, err)
	}
	// Output:
	// sqlrepo: create in users: repository: unique constraint email violated (email)
	// cleo@example.com 1 <nil>
	// ben@example.com 1 <nil>
}
