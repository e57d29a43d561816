package testenv

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// Mongo returns the URL of a database of the test's own; its path is the database's name. See OpenMongo.
func Mongo(t testing.TB) string {
	t.Helper()
	u := mongodb.url(t)
	name := unique()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), setup)
		defer cancel()
		c, err := mongo.Connect(options.Client().ApplyURI(u.String()))
		if err != nil {
			t.Errorf("testenv: connect to drop the database: %v", err)
			return
		}
		defer func() { _ = c.Disconnect(ctx) }()
		if err := c.Database(name).Drop(ctx); err != nil {
			t.Errorf("testenv: drop the database: %v", err)
		}
	})
	return ownMongo(*u, name)
}

// ownMongo is the URL of another database at the same server. The users of the server are the same: the driver
// looks for users in the URL's database where the URL does not say otherwise.
func ownMongo(u url.URL, name string) string {
	if q := u.Query(); u.User != nil && !q.Has("authSource") {
		from := strings.Trim(u.Path, "/")
		if from == "" {
			from = "admin"
		}
		q.Set("authSource", from)
		u.RawQuery = q.Encode()
	}
	u.Path = "/" + name
	return u.String()
}

// OpenMongo opens the database that a URL's path names, as Mongo returns it. Further options go over the URL's.
func OpenMongo(dsn string, opts ...*options.ClientOptions) (*mongo.Database, error) {
	u, err := url.Parse(dsn)
	if err != nil {
		return nil, fmt.Errorf("testenv: the URL of a MongoDB database: %w", err)
	}
	c, err := mongo.Connect(append([]*options.ClientOptions{options.Client().ApplyURI(dsn)}, opts...)...)
	if err != nil {
		return nil, fmt.Errorf("testenv: connect to MongoDB: %w", err)
	}
	return c.Database(strings.Trim(u.Path, "/")), nil
}

// MongoDatabase is OpenMongo for a test, which disconnects the client when it ends.
func MongoDatabase(t testing.TB, dsn string, opts ...*options.ClientOptions) *mongo.Database {
	t.Helper()
	db, err := OpenMongo(dsn, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Client().Disconnect(context.Background()) })
	return db
}
