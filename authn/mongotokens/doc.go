// Package mongotokens keeps refresh tokens and revoked token ids in MongoDB, so that logins survive a restart and
// replicas share them. It needs no transactions and no replica set.
//
//	tokens, err := mongotokens.New(db, mongotokens.Config{}) // db is a *mongo.Database
//	err = tokens.EnsureIndexes(ctx)
//	issuer, err := authn.NewIssuer(keys, tokens, authn.IssuerConfig{Issuer: "https://shop"})
//
// # Guarantees
//
//   - Tokens are stored as hashes. A copy of the database contains no usable token.
//   - A login is one document, so an exchange is one atomic write. Exchanges and revocations at the same time
//     run one after the other, so that a revocation misses no token.
//   - Writes are acknowledged by the majority where there is a replica set, and reads are from the primary, whatever
//     the defaults of the client are: a revocation that was acknowledged survives a failover and is seen at once.
//   - The document stays small: tokens that were used longer ago than the grace are moved to another collection, where
//     their reuse is found until they expire.
//
// # What it does not do
//
// It deletes nothing by itself: call Purge regularly. It takes no part in transactions of the caller.
package mongotokens
