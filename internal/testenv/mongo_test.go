package testenv

import (
	"net/url"
	"testing"
)

// A server that knows users knows them where it did, whatever database the test has.
func TestOwnMongoStartsAndEnds(t *testing.T) {
	for from, want := range map[string]string{
		"mongodb://127.0.0.1:27017/":                      "mongodb://127.0.0.1:27017/own",
		"mongodb://u:p@host/":                             "mongodb://u:p@host/own?authSource=admin",
		"mongodb://u:p@host/users?replicaSet=rs0":         "mongodb://u:p@host/own?authSource=users&replicaSet=rs0",
		"mongodb://u:p@host/users?authSource=%24external": "mongodb://u:p@host/own?authSource=%24external",
		"mongodb://host:1/other?directConnection=true":    "mongodb://host:1/own?directConnection=true",
	} {
		u, err := url.Parse(from)
		if err != nil {
			t.Fatal(err)
		}
		if got := ownMongo(*u, "own"); got != want {
			t.Errorf("%s: %s, want %s", from, got, want)
		}
	}
}
