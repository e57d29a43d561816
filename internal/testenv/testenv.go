// Package testenv gives tests private places on real servers: a database, a vhost, a key space each, removed when the
// test ends. Where a server does not answer, the test is skipped with the line that starts it; under
// SILLAR_REQUIRE_SERVICES=1, which CI sets, it fails.
package testenv

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"github.com/sillar-go/sillar/internal/id"
)

// setup bounds what is done on a server before and after a test.
const setup = 20 * time.Second

// server is a kind of server that tests need.
type server struct {
	name, variable, fallback string
}

var (
	postgres = server{"PostgreSQL", "SILLAR_POSTGRES_URL", "postgres://postgres@127.0.0.1:5432/postgres"}
	rabbitmq = server{"RabbitMQ", "SILLAR_RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672/"}
	mongodb  = server{"a MongoDB-protocol server", "SILLAR_MONGODB_URL", "mongodb://127.0.0.1:27017/"}
	redisdb  = server{"Redis", "SILLAR_REDIS_URL", "redis://127.0.0.1:6379/0"}
)

var reachable sync.Map // address -> error or nil

// url returns the server's URL, or ends the test.
func (s server) url(t testing.TB) *url.URL {
	t.Helper()
	raw := os.Getenv(s.variable)
	if raw == "" {
		raw = s.fallback
	}
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatalf("testenv: %s is not a URL", s.variable)
	}
	probe, ok := reachable.Load(u.Host)
	if !ok {
		conn, err := net.DialTimeout("tcp", u.Host, 2*time.Second)
		if err == nil {
			err = conn.Close()
		}
		probe, _ = reachable.LoadOrStore(u.Host, fmt.Sprint(err))
	}
	if probe != fmt.Sprint(error(nil)) {
		s.missing(t, probe)
	}
	return u
}

func (s server) missing(t testing.TB, why any) {
	t.Helper()
	line := fmt.Sprintf(
		"no %s (%v): start it with `tools/services up`, then `eval \"$(tools/services env)\"`, or name one in %s", s.name,
		why, s.variable,
	)
	Missing(t, line)
}

// Missing skips a test that lacks a server or a program; line says what gets it. Under SILLAR_REQUIRE_SERVICES the test
// fails.
func Missing(t testing.TB, line string) {
	t.Helper()
	if os.Getenv("SILLAR_REQUIRE_SERVICES") == "1" {
		t.Fatal(line)
	}
	t.Skip(line)
}

// unique returns a name that no other test has.
func unique() string { return "sillar_" + strings.ReplaceAll(id.New(), "-", "") }

// Postgres returns the URL of a database of the test's own.
func Postgres(t testing.TB) string {
	t.Helper()
	u := postgres.url(t)
	ctx, cancel := context.WithTimeout(context.Background(), setup)
	defer cancel()
	name := unique()
	exec := func(ctx context.Context, statement string) error {
		c, err := pgx.Connect(ctx, u.String())
		if err != nil {
			return err
		}
		defer c.Close(ctx)
		_, err = c.Exec(ctx, statement)
		return err
	}
	if err := exec(ctx, "CREATE DATABASE "+name); err != nil {
		t.Fatalf("testenv: make a database: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), setup)
		defer cancel()
		if err := exec(ctx, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)"); err != nil {
			t.Errorf("testenv: drop the database: %v", err)
		}
	})
	own := *u
	own.Path = "/" + name
	return own.String()
}

// SQLite returns the DSN of a SQLite file of the test's own, as package sqldb reads it.
func SQLite(t testing.TB) string {
	t.Helper()
	return "sqlite:" + filepath.Join(t.TempDir(), "test.db")
}

// SQL returns the SQL databases by their dialects, each as a function that makes one of the test's own and returns its
// DSN.
func SQL() map[string]func(testing.TB) string {
	return map[string]func(testing.TB) string{"sqlite": SQLite, "postgresql": Postgres}
}

// Redis returns the URL of a Redis server and a prefix for the test's own keys, which are removed when it ends.
func Redis(t testing.TB) (dsn, prefix string) {
	t.Helper()
	u := redisdb.url(t)
	prefix = unique() + ":"
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), setup)
		defer cancel()
		opt, err := redis.ParseURL(u.String())
		if err != nil {
			t.Errorf("testenv: %s: %v", redisdb.variable, err)
			return
		}
		c := redis.NewClient(opt)
		defer c.Close()
		keys := c.Scan(ctx, 0, prefix+"*", 100).Iterator()
		for keys.Next(ctx) {
			c.Del(ctx, keys.Val())
		}
		if err := keys.Err(); err != nil {
			t.Errorf("testenv: remove keys: %v", err)
		}
	})
	return u.String(), prefix
}
