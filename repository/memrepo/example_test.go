package memrepo_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/memrepo"
)

type Account struct {
	repository.Meta
	Email string
}

// A service's tests need no database: the repository in memory keeps the same promises.
func Example() {
	ctx := context.Background()
	accounts := memrepo.Must(memrepo.New[Account](memrepo.Config{Unique: [][]string{{"email"}}}))
	ana, err := accounts.Create(ctx, Account{Email: "ana@example.com"})
	fmt.Println(ana.Version, err)
	_, err = accounts.Create(ctx, Account{Email: "ana@example.com"})
	fmt.Println(errors.Is(err, repository.ErrUnique))
	// Output:
	// 1 <nil>
	// true
}

// Contact is what a list shows of an Account.
type Contact struct {
	repository.Meta
	Email string
}

// A view reads a part of the entities of another repository. Over a table or a collection sqlrepo.New and mongorepo.New
// of the smaller struct do.
func ExampleView() {
	ctx := context.Background()
	accounts := memrepo.Must(memrepo.New[Account](memrepo.Config{}))
	contacts, err := memrepo.View[Contact](accounts)
	fmt.Println(err)
	ana, _ := accounts.Create(ctx, Account{Email: "ana@example.com"})
	contact, err := contacts.Get(ctx, ana.ID)
	fmt.Println(contact.Email, err)
	// Output:
	// <nil>
	// ana@example.com <nil>
}
