// Package sqlkeys keeps signing keys in PostgreSQL or SQLite, so that the replicas of an issuer share them: each signs
// with the same keys, and one of them rotates.
//
//	store, err := sqlkeys.New(db, sqlkeys.Config{Secret: secret}) // db is a *sqldb.DB
//	err = store.EnsureSchema(ctx)
//	keys, err := authn.NewKeySet(store, authn.KeyConfig{})
//
// # Guarantees
//
//   - Private keys are encrypted with a key from Config.Secret, which is not in the database: a copy of the database
//     alone cannot sign tokens.
//   - Saving compares versions in one statement, so that of replicas that rotate at once one wins.
//   - Calls take part in no transaction of the caller: keys that tokens were signed with are never rolled back.
package sqlkeys
