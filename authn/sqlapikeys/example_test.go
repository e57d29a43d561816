package sqlapikeys_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/authn/sqlapikeys"
	"github.com/sillar-go/sillar/repository/sqldb"
)

// A service that is called with API keys, and with nothing else.
func Example() {
	ctx := context.Background()
	db := sqldb.Must(sqldb.Open(ctx, "sqlite::memory:", sqldb.Config{}))
	defer db.Close()
	store := sqlapikeys.Must(sqlapikeys.New(db, sqlapikeys.Config{}))
	if err := store.EnsureSchema(ctx); err != nil {
		fmt.Println(err)
		return
	}
	keys := authn.Must(authn.NewAPIKeys(store, authn.APIKeyConfig{Prefix: "shop"}))
	secret, key, err := keys.Issue(ctx, authn.Subject{ID: "ci", Scopes: []string{"orders:read"}},
		authn.APIKeyOptions{Name: "CI"})
	if err != nil {
		fmt.Println(err)
		return
	}

	v := authn.Must(authn.NewVerifier(nil, authn.VerifierConfig{APIKeys: keys}))
	orders := authn.Require(v, authn.AnyScope("orders:read"))(http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) {
			user, _ := authn.FromContext(r.Context())
			fmt.Fprint(w, "hello ", user.ID)
		}))
	call := func() {
		r := httptest.NewRequest(http.MethodGet, "/orders", nil)
		r.Header.Set("Authorization", "Bearer "+secret)
		rec := httptest.NewRecorder()
		orders.ServeHTTP(rec, r)
		fmt.Println(rec.Code)
	}
	call()
	if err := keys.Revoke(ctx, "ci", key.ID); err != nil {
		fmt.Println(err)
	}
	call()

	// Output:
	// 200
	// 401
}
