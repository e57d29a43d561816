package mongokeys_test

import (
	"errors"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.uber.org/goleak"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/authn/authntest"
	"github.com/sillar-go/sillar/authn/mongokeys"
	"github.com/sillar-go/sillar/internal/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var cfg = mongokeys.Config{Secret: []byte(strings.Repeat("s", 32))}

func TestConformance(t *testing.T) {
	authntest.RunKeys(t, func(t *testing.T) (authn.KeyStore, func() authn.KeyStore) {
		db := testenv.MongoDatabase(t, testenv.Mongo(t))
		return mongokeys.Must(mongokeys.New(db, cfg)), func() authn.KeyStore { return mongokeys.Must(mongokeys.New(db, cfg)) }
	})
}

// The database alone signs nothing.
func TestKeysAreEncrypted(t *testing.T) {
	db := testenv.MongoDatabase(t, testenv.Mongo(t))
	authn.Must(authn.NewKeySet(mongokeys.Must(mongokeys.New(db, cfg)), authn.KeyConfig{}))
	raw, err := db.Collection("sillar_signing_keys").FindOne(t.Context(), bson.D{}).Raw()
	if err != nil || strings.Contains(string(raw), "EdDSA") {
		t.Errorf("the document shows the keys: %s, %v", raw, err)
	}
	other := mongokeys.Must(mongokeys.New(db, mongokeys.Config{Secret: []byte(strings.Repeat("o", 32))}))
	if _, _, err := other.Load(t.Context()); err == nil {
		t.Error("another secret decrypts")
	}
	if _, err := mongokeys.New(db, mongokeys.Config{}); !errors.Is(err, authn.ErrWeakKey) {
		t.Errorf("no secret: got %v, want ErrWeakKey", err)
	}
}
