package sagasql_test

import (
	"bytes"
	"net/url"
	"sync"
	"testing"

	"github.com/sillar-go/sillar/internal/faultproxy"
	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/repository/sqldb"
	"github.com/sillar-go/sillar/saga/sagasql"
	"github.com/sillar-go/sillar/saga/sagatest"
)

// buffer is a bytes.Buffer that is safe for concurrent use.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func TestFrozenConnectionsAreReplaced(t *testing.T) {
	dsn, err := url.Parse(testenv.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	proxy := faultproxy.New(t, dsn.Host)
	dsn.Host = proxy.Addr()
	db := sqldb.Must(sqldb.Open(t.Context(), dsn.String(), sqldb.Config{}))
	t.Cleanup(func() { proxy.Cut(); _ = db.Close() })
	store := sagasql.Must(sagasql.New(db, sagasql.Config{}))
	if err := store.EnsureSchema(t.Context()); err != nil {
		t.Fatal(err)
	}
	sagatest.Frozen(t, store, proxy.Freeze)
}
