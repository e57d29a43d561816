// Package mongotokens keeps refresh tokens and revoked token ids in MongoDB, so that logins survive a restart and
// replicas share them. It needs no transactions and no replica set.
//
//	tokens, err := mongotokens.New(db, mongotokens.Config{}) // db is a *mongo.Database
//	err = tokens.EnsureIndexes(ctx)
//	issuer, err := authn.NewIssuer(keys, tokens, authn.IssuerConfig{Issuer: "https://shop"})
//
// # Guarantees
//
//   - Tokens are stored as hashes. A copy of the database logs nobody in.
//   - A login is one document, so an exchange is one atomic write. Of exchanges and revocations at the same time each
//     sees what the one before has written: none slips past a revocation.
//   - Writes are acknowledged by the majority where there is a replica set, and reads are the primary's, whatever the
//     client's defaults are: a revocation that was acknowledged survives a failover and is seen at once.
//   - The document stays small: tokens that were used longer ago than the grace lie in a collection of their own, where
//     reuse is found as long as they have not expired.
//
// # What it does not do
//
// It deletes nothing by itself: call Purge now and then. It takes no part in transactions of the caller's.
package mongotokens
