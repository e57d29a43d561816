// Package sqltokens keeps refresh tokens and revoked token ids in PostgreSQL or SQLite, so that logins survive a
// restart and replicas share them.
//
//	tokens, err := sqltokens.New(db, sqltokens.Config{}) // db is a *sqldb.DB
//	err = tokens.EnsureSchema(ctx)
//	issuer, err := authn.NewIssuer(keys, tokens, authn.IssuerConfig{Issuer: "https://shop"})
//
// # Guarantees
//
//   - Tokens are stored as hashes. A copy of the database logs nobody in.
//   - An exchange is one transaction. Exchanges and revocations of one subject take turns, so none slips past a
//     revocation.
//   - Calls join a transaction that the context carries for this database. A reuse that is found inside such a
//     transaction is revoked with its commit.
//
// # What it does not do
//
// It deletes nothing by itself: call Purge now and then.
package sqltokens
