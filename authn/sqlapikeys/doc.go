// Package sqlapikeys keeps API keys in PostgreSQL or SQLite, so that they survive a restart and replicas share them.
//
//	store, err := sqlapikeys.New(db, sqlapikeys.Config{}) // db is a *sqldb.DB
//	err = store.EnsureSchema(ctx)
//	keys, err := authn.NewAPIKeys(store, authn.APIKeyConfig{Prefix: "shop"})
//
// # Guarantees
//
//   - Keys are stored as hashes: a copy of the database contains no usable key.
//   - A rotation is one statement. When one key is rotated twice at the same time, one rotation succeeds.
//   - Calls join a transaction that the context carries for this database, so that a key is created with the user that
//     it belongs to, and deleted with it.
//
// # What it does not do
//
// It deletes no expired keys by itself: call Purge regularly.
package sqlapikeys
