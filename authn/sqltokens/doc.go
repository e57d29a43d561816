// Package sqltokens keeps refresh tokens and revoked token ids in PostgreSQL or SQLite, so that logins survive a
// restart and replicas share them.
//
//	tokens, err := sqltokens.New(db, sqltokens.Config{}) // db is a *sqldb.DB
//	err = tokens.EnsureSchema(ctx)
//	issuer, err := authn.NewIssuer(keys, tokens, authn.IssuerConfig{Issuer: "https://shop"})
//
// # Guarantees
//
//   - Tokens are stored as hashes. A copy of the database contains no usable token.
//   - An exchange is one transaction. Exchanges and revocations of one subject run one after the other, so that a
//     revocation misses no token.
//   - Calls join a transaction that the context carries for this database. The revocation for a reuse that
//     is found inside such a transaction persists when the transaction is rolled back; Rotate names a limit.
//
// # What it does not do
//
// It deletes nothing by itself: call Purge regularly.
package sqltokens
