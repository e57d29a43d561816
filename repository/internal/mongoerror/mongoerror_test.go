package mongoerror_test

import (
	"testing"

	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/sillar-go/sillar/repository/internal/mongoerror"
)

// The messages of MongoDB and of FerretDB, and values that try to pass for an index.
func TestIndexIsReadFromErrorMessages(t *testing.T) {
	for message, want := range map[string]string{
		`E11000 duplicate key error collection: shop.users index: email_key dup key: { email: "a@b" }`:                                    "email_key",
		`E11000 duplicate key error collection: shop.users index: sku_key dup key: { sku: " index: org_sku_key dup key: Index 'b_key'" }`: "sku_key",
		`E11000 duplicate key error collection: shop.users index: _id_ dup key: { _id: "event_id" }`:                                      "_id_",
		`E11000 duplicate key error collection: shop.users index: a_key collation: { locale: "en" } dup key: { a: "0x41" }`:               "a_key",
		`Duplicate key violation on the requested collection: Index 'org_sku_key'`:                                                        "org_sku_key",
		`something else`: "",
	} {
		for _, err := range []error{
			mongo.WriteException{WriteErrors: mongo.WriteErrors{{Code: 11000, Message: message}}},
			mongo.CommandError{Code: 11000, Name: "DuplicateKey", Message: message},
		} {
			if got := mongoerror.Index(err); got != want {
				t.Errorf("%q of %v, want %q", got, err, want)
			}
		}
	}
}
