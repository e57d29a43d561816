// Package mongorepo stores entities in a MongoDB collection as a repository.Repository. It needs no replica set: every
// write is one document, compared and set by its version.
//
//	client, err := mongo.Connect(options.Client().ApplyURI(uri))
//	users, err := mongorepo.New[User](ctx, client.Database("users"),
//		mongorepo.Config{Collection: "users", Unique: [][]string{{"email"}}})
//
// The functions given to Create, Update and Delete get a collector in their context (driver.Collect): what they
// collect is written into the field _effects of the same document in the same atomic write, from where
// outbox/mongooutbox drains it. A delete with effects leaves a tombstone, which no query sees, until they are drained.
//
// Writes are acknowledged by the majority where there is a replica set, whatever the client's defaults are, so that
// what was acknowledged, with its effects, survives a failover. Get, GetMany, Find and Count read where and what the
// client's defaults say: by default from the primary, and also what the majority does not have yet.
//
// Times are cut to milliseconds. A pointer that is nil is stored as null. Structs, maps and slices are stored as
// documents and arrays, in the form that encoding/json gives them; as JSON text where BSON would not hold what they
// hold (names with a dot or that begin with $, numbers of more digits), in which no query finds anything. Documents
// that other programs have written are read the same way, also with ObjectIDs (Config.ObjectIDs) and without a version.
// Update and Replace write the fields that changed, and keep fields that the entity does not have.
package mongorepo
