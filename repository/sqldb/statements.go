package sqldb

import (
	"context"
	"database/sql"
	"sync"
)

// maxStatements bounds the statements that are kept prepared on a handle. What comes later is prepared each time.
const maxStatements = 250

// statements keeps statements prepared: parsing one takes SQLite as long as running it. PostgreSQL's are kept by pgx.
type statements struct {
	handle *sql.DB

	mu     sync.Mutex
	byText map[string]*sql.Stmt
	wanted map[string]bool
}

func newStatements(handle *sql.DB) *statements {
	return &statements{handle: handle, byText: map[string]*sql.Stmt{}, wanted: map[string]bool{}}
}

// kept reports which statements are worth it: those that a program repeats.
func kept(query string) bool {
	switch operation(query) {
	case "SELECT", "INSERT", "UPDATE", "DELETE", "WITH":
		return true
	}
	return false
}

// prepared returns the statement, or nil where it is not kept.
func (s *statements) prepared(ctx context.Context, query string) *sql.Stmt {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	stmt, full := s.byText[query], len(s.byText) >= maxStatements
	s.mu.Unlock()
	if stmt != nil || full || !kept(query) {
		return stmt
	}
	stmt, err := s.handle.PrepareContext(ctx, query)
	if err != nil {
		return nil // running it says what is wrong
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if other := s.byText[query]; other != nil {
		_ = stmt.Close() //nolint:sqlclosecheck // only where another was faster
		return other
	}
	s.byText[query] = stmt
	return stmt
}

// inTx returns the statement for a transaction of the handle's. That holds the only connection, so what is not
// prepared yet is noted for the next one.
func (s *statements) inTx(ctx context.Context, t *sql.Tx, query string) *sql.Stmt {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if stmt := s.byText[query]; stmt != nil {
		return t.StmtContext(ctx, stmt)
	}
	if len(s.byText)+len(s.wanted) < maxStatements && kept(query) {
		s.wanted[query] = true
	}
	return nil
}

// prepareWanted prepares what transactions have asked for.
func (s *statements) prepareWanted(ctx context.Context) {
	if s == nil {
		return
	}
	s.mu.Lock()
	var wanted map[string]bool
	if len(s.wanted) > 0 {
		wanted, s.wanted = s.wanted, map[string]bool{}
	}
	s.mu.Unlock()
	for query := range wanted {
		s.prepared(ctx, query)
	}
}
