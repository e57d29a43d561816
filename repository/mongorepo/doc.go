// Package mongorepo stores entities in a MongoDB collection as a repository.Repository. It needs no replica set: every
// write is one document, compared and set by its version.
//
//	client, err := mongo.Connect(options.Client().ApplyURI(uri))
//	users, err := mongorepo.New[User](ctx, client.Database("users"), mongorepo.Config{Collection: "users", Unique: [][]string{{"email"}}})
//
// The functions given to Create, Update and Delete get a collector in their context (repository.Collect): what they
// collect is written into the field _effects of the same document in the same atomic write, from where
// outbox/mongooutbox drains it. A delete with effects leaves a tombstone, which no query sees, until they are drained.
//
// Writes are acknowledged by the majority where there is a replica set, whatever the client's defaults are, so that what
// was acknowledged, with its effects, survives a failover. Get, GetMany, Find and Count read where and what the client's
// defaults say: by default from the primary, and also what the majority does not have yet.
//
// Times are cut to milliseconds. A pointer that is nil is stored as null; columns of other types than the scalar ones
// are stored as JSON text.
package mongorepo
