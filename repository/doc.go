// Package repository is the port of typed stores: entities are created, read, found and changed through one small
// interface with the same meaning on memory, SQLite, PostgreSQL and MongoDB.
//
//	type Product struct {
//		repository.Meta
//		Name  string
//		Price int64 // cents
//		Stock int64
//	}
//
//	var (
//		Name  = repository.Text(func(p *Product) *string { return &p.Name })
//		Price = repository.Ord(func(p *Product) *int64 { return &p.Price })
//	)
//
//	products, err := sqlrepo.New[Product](db, sqlrepo.Config{Table: "products"})
//	lamp, err := products.Create(ctx, Product{Name: "Lamp", Price: 1990})
//	page, err := products.Find(ctx, repository.Query[Product]{
//		Where: Price.Gte(1000).And(Name.HasPrefix("L")),
//		Sort:  []repository.Sort[Product]{Price.Desc()},
//		Limit: 50,
//	})
//	lamp, err = products.Update(ctx, lamp.ID, func(ctx context.Context, p *Product) error { p.Stock--; return nil })
//
// # Entities
//
// An entity is a struct with the fields ID string, Version int64, CreatedAt and UpdatedAt time.Time, or with Meta
// embedded. A field is stored under its name in snake case, or under the name in its tag `repo:"name"`; `repo:"-"`
// leaves it out. Strings, booleans, numbers, times, byte slices and pointers to these are stored as such, a nil pointer
// as NULL; every other type is stored as JSON. NULL in a field that is no pointer reads as its zero value.
//
// Inside JSON two things can be searched, with the same answer on every adapter:
//
//   - Fields of structs, through an accessor that points there: func(p *Product) *string { return &p.Maker.City }. They
//     are text, booleans or numbers, or pointers to these, have names of letters, digits and _, and no methods that
//     encode them. A field that is left out where it is zero (omitempty) must be a pointer. Update sets them.
//   - Elements of slices of text, booleans and numbers: List and its Contains.
//
// # A few columns of many
//
// A smaller struct over the same table or collection reads only what it has: keep it as a Reader, so that what writes
// does not compile. It has fields of the same names and types, the four of Meta among them.
//
//	type Label struct {
//		repository.Meta
//		Name string
//	}
//	labels, err := sqlrepo.New[Label](db, sqlrepo.Config{Table: "products"}) // memory: memrepo.View[Label](products)
//	var reader repository.Reader[Label] = labels
//
// Distinct lists the values of one field.
//
// # Guarantees, on every adapter
//
//   - A stale write is a *ConflictError, a missing entity ErrNotFound; neither writes, and an update never brings back
//     what was deleted.
//   - Update and Replace write what changed, and keep fields inside JSON that the entity does not have: two versions of
//     a program may run side by side.
//   - Update is a read-change-write that loses no update under concurrency; its function may run more than once.
//   - Fields are resolved against the mapped set before anything is sent: an unknown or hostile name is a *FieldError.
//   - Find has a limit always; paging is by keyset, with the id as the last sort key and NULL before every value; a
//     cursor is opaque and bound to the query it came from (ErrCursor).
//   - A comparison with NULL is false, and so is its negation's complement: logic is two-valued everywhere.
//   - Times come back in UTC, cut on write to microseconds (SQL, memory) or milliseconds (MongoDB). Those before the
//     year -4711 or after 294246 are ErrValue.
//
// # What it does not do
//
// It is no ORM: no relations, no joins, no lazy loading, no dirty tracking. Sums and reports are for SQL
// (sqldb.DB.Querier), or for the collection. MySQL is not supported.
package repository
