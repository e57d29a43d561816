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
// Times are cut to milliseconds. A pointer that is nil is stored as null; columns of other types than the scalar ones
// are stored as JSON text.
package mongorepo
