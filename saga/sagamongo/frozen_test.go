package sagamongo_test

import (
	"net/url"
	"testing"

	"go.uber.org/goleak"

	"github.com/sillar-go/sillar/internal/faultproxy"
	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/saga/sagamongo"
	"github.com/sillar-go/sillar/saga/sagatest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestFrozenConnectionsAreReplaced(t *testing.T) {
	dsn, err := url.Parse(testenv.Mongo(t))
	if err != nil {
		t.Fatal(err)
	}
	proxy := faultproxy.New(t, dsn.Host)
	dsn.Host = proxy.Addr()
	q := dsn.Query()
	q.Set("directConnection", "true") // not to the addresses that the server has for itself
	dsn.RawQuery = q.Encode()
	store := sagamongo.Must(sagamongo.New(t.Context(), testenv.MongoDatabase(t, dsn.String()), sagamongo.Config{}))
	t.Cleanup(proxy.Cut) // before the client disconnects
	sagatest.Frozen(t, store, proxy.Freeze)
}
