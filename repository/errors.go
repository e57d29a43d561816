package repository

import (
	"errors"
	"fmt"
	"strings"

	"github.com/sillar-go/sillar/repository/driver"
)

// Errors of this package, to be compared with errors.Is.
var (
	// ErrNotFound says that there is no entity with the id.
	ErrNotFound = errors.New("repository: not found")
	// ErrConflict is matched by every *ConflictError.
	ErrConflict = errors.New("repository: conflict")
	// ErrUnique is matched by every *UniqueError.
	ErrUnique = errors.New("repository: unique constraint violated")
	// ErrCursor says that a cursor was changed, or belongs to another query.
	ErrCursor = driver.ErrCursor
	// ErrValue says that a value cannot be stored so that it is read as it was: NaN, a time before the year -4711 or
	// after 294246, invalid UTF-8 inside a field that is stored as JSON, a driver.Valuer that fails, and on PostgreSQL
	// text with NUL or invalid UTF-8. A query for such text finds nothing there, without an error.
	ErrValue = driver.ErrValue
	// ErrQuery is matched by every *FieldError and *QueryError.
	ErrQuery = errors.New("repository: unusable query")
	// ErrNoTransactions says that the database accepts transactions but does not keep their promise.
	ErrNoTransactions = errors.New("repository: the database does not support transactions")
	// ErrNoEffects says that an outbox or inbox inside documents was used outside the write of one.
	ErrNoEffects = driver.ErrNoEffects
)

// ConflictError says that an entity was changed since it was read. It matches ErrConflict.
type ConflictError struct {
	// ID is the id of the entity.
	ID string
	// Expected is the version the writer had read.
	Expected int64
	// Actual is the version that is stored.
	Actual int64
}

// Error implements error.
func (e *ConflictError) Error() string {
	return fmt.Sprintf("repository: conflict on %s: expected version %d, found %d", e.ID, e.Expected, e.Actual)
}

// Is makes the error match ErrConflict.
func (e *ConflictError) Is(target error) bool { return target == ErrConflict }

// Conflict reports, to packages that do not import this one, that trying again on a fresh read may succeed.
func (e *ConflictError) Conflict() bool { return true }

// UniqueError says that another entity holds the same value in a unique field. It matches ErrUnique.
type UniqueError struct {
	// Constraint is the name of the index or constraint.
	Constraint string
	// Fields are the columns it covers, where the database names them.
	Fields []string
	// Err is the driver's error; it may quote values, and is not for clients.
	Err error
}

// Error implements error.
func (e *UniqueError) Error() string {
	return fmt.Sprintf("repository: unique constraint %s violated (%s)", e.Constraint, strings.Join(e.Fields, ", "))
}

// Is makes the error match ErrUnique.
func (e *UniqueError) Is(target error) bool { return target == ErrUnique }

// Unwrap returns the driver's error.
func (e *UniqueError) Unwrap() error { return e.Err }

// FieldError says that a query names a field that the entity does not have, or uses one in a way its type does not
// allow. Nothing was sent. It matches ErrQuery.
type FieldError struct {
	// Field is the name, cut to 64 bytes.
	Field string
	// Reason says what is wrong.
	Reason string
}

// Error implements error.
func (e *FieldError) Error() string {
	return fmt.Sprintf("repository: field %q: %s", e.Field, e.Reason)
}

// Is makes the error match ErrQuery.
func (e *FieldError) Is(target error) bool { return target == ErrQuery }

// QueryError says that a query makes no sense, apart from its fields. Nothing was sent. It matches ErrQuery.
type QueryError struct {
	// Reason says what is wrong.
	Reason string
}

// Error implements error.
func (e *QueryError) Error() string { return "repository: " + e.Reason }

// Is makes the error match ErrQuery.
func (e *QueryError) Is(target error) bool { return target == ErrQuery }
