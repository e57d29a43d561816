package sqldb

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/trace"

	"github.com/sillar-go/sillar/internal/backoff"
)

const scope = "github.com/sillar-go/sillar/repository/sqldb"

const (
	connectTimeout = 10 * time.Second // to one host
	closeTimeout   = 3 * time.Second
)

// Dialect names the SQL that a database understands.
type Dialect string

// The dialects.
const (
	PostgreSQL Dialect = "postgresql"
	SQLite     Dialect = "sqlite"
)

// Config tunes a DB. The zero Config is useful.
type Config struct {
	// MaxConns bounds the connections (PostgreSQL) or readers (SQLite). 0 means 4 a core, at least 8. A pool larger
	// than what the server can run at once makes every transaction slower, not the sum faster.
	MaxConns int
	// MaxAttempts bounds how often the outermost InTx runs its function when it loses against other transactions.
	// 0 means 10; negative means once.
	MaxAttempts int
	// BusyTimeout bounds the wait for SQLite's writer (default 5 s) or for a connection of PostgreSQL's pool (default 30
	// s), not the work with it. Then comes ErrBusy.
	BusyTimeout time.Duration
	// StatementTimeout bounds the wait for PostgreSQL's answer to a statement whose context has no deadline, and for each
	// row of a query, so that a connection that has gone silent ends in context.DeadlineExceeded. 0 means a minute;
	// negative disables it. A statement that takes longer, such as one that builds an index, needs a context with a
	// deadline of its own. Below the timeout of requests (30 s in the gateway) they are answered with the error.
	StatementTimeout time.Duration
	// Synchronous is SQLite's durability: "FULL" (the default: a commit survives a power cut) or "NORMAL" (some four
	// times faster; a power cut may lose the last commits but never corrupts).
	Synchronous string
	// WrapConnector wraps what opens SQLite's connections, such as with sqldbtest.Faulty in tests. PostgreSQL does not
	// use it. Default none.
	WrapConnector func(driver.Connector) driver.Connector
	// TracerProvider makes the spans of statements and transactions, as children of a recording span only. Nil means
	// the global one.
	TracerProvider trace.TracerProvider
}

// DB is an open database. It is safe for concurrent use.
type DB struct {
	dialect Dialect
	cfg     Config
	tracer  trace.Tracer

	pool   *pgxpool.Pool // PostgreSQL, native
	keeps  bool          // statements: see Replan
	writer *sql.DB       // SQLite, or a database/sql handle of the caller's
	reader *sql.DB       // SQLite; equals writer where there is only one
	owned  bool
	// held while SQLite's only writer is used; nil where there are several, or the handle is the caller's
	turn chan struct{}
	// waits for a connection of the pool, and for PostgreSQL
	places, answers *watch

	writes, reads *statements // of SQLite that Open opened
}

// Open opens the database that dsn names and checks that it answers:
//
//	postgres://user:password@host:5432/name   PostgreSQL, with pgxpool's parameters (postgresql:// too), or a pooler
//	                                          such as pgbouncer before it, in any mode; connect_timeout
//	                                          bounds a connection to one host (seconds, default 10)
//	sqlite:path/to/file.db                    SQLite; the package sqldb/sqlite must be imported
//	sqlite::memory:                           SQLite in memory, on one connection
//
// Errors never hold the DSN's password. An unusable DSN is ErrDSN.
func Open(ctx context.Context, dsn string, cfg Config) (*DB, error) {
	switch {
	case strings.HasPrefix(dsn, "postgres://"), strings.HasPrefix(dsn, "postgresql://"):
		return openPostgres(ctx, dsn, cfg)
	case strings.HasPrefix(dsn, "sqlite:"):
		return openSQLite(ctx, strings.TrimPrefix(strings.TrimPrefix(dsn, "sqlite:"), "//"), cfg)
	}
	scheme, _, _ := strings.Cut(dsn, ":")
	if len(scheme) > 16 || scheme == dsn {
		scheme = "?"
	}
	if dsn == "" {
		return nil, fmt.Errorf("%w: it is empty; is the variable or flag that holds it set?", ErrDSN)
	}
	return nil, fmt.Errorf("%w: scheme %q (want postgres:// or sqlite:)", ErrDSN, scheme)
}

// Must returns db or panics with err: for programs that cannot start without.
func Must(db *DB, err error) *DB {
	if err != nil {
		panic(err)
	}
	return db
}

// FromPool uses a pool of the caller's, who also closes it. Behind a pooler in transaction mode, such as pgbouncer, its
// ConnConfig.DefaultQueryExecMode must be pgx.QueryExecModeCacheDescribe, which Open sets by itself.
func FromPool(pool *pgxpool.Pool, cfg Config) (*DB, error) {
	if pool == nil {
		return nil, errors.New("sqldb: FromPool needs a pool")
	}
	return newDB(PostgreSQL, cfg, func(db *DB) { db.pool, db.keeps = pool, keeps(pool) }), nil
}

// FromSQL uses a database/sql handle of the caller's, who also closes it. For SQLite the handle should hold one
// connection and begin transactions IMMEDIATE; Open sets up both and readers besides. Behind a pooler in transaction
// mode pgx's handle needs default_query_exec_mode=cache_describe in its URL, and lib/pq's binary_parameters=yes.
func FromSQL(handle *sql.DB, dialect Dialect, cfg Config) (*DB, error) {
	if handle == nil {
		return nil, errors.New("sqldb: FromSQL needs a handle")
	}
	if dialect != PostgreSQL && dialect != SQLite {
		return nil, fmt.Errorf("sqldb: unknown dialect %q", dialect)
	}
	return newDB(dialect, cfg, func(db *DB) { db.writer, db.reader = handle, handle }), nil
}

func newDB(d Dialect, cfg Config, set func(*DB)) *DB {
	if cfg.MaxConns <= 0 {
		cfg.MaxConns = max(8, 4*runtime.NumCPU())
	}
	if cfg.MaxAttempts == 0 {
		cfg.MaxAttempts = 10
	}
	if cfg.BusyTimeout <= 0 {
		cfg.BusyTimeout = 5 * time.Second
		if d == PostgreSQL {
			cfg.BusyTimeout = 30 * time.Second
		}
	}
	if cfg.StatementTimeout == 0 {
		cfg.StatementTimeout = time.Minute
	}
	cfg.TracerProvider = cmp.Or(cfg.TracerProvider, otel.GetTracerProvider())
	db := &DB{dialect: d, cfg: cfg, tracer: cfg.TracerProvider.Tracer(scope), places: newWatch(cfg.BusyTimeout),
		answers: newWatch(cfg.StatementTimeout)}
	set(db)
	return db
}

func openPostgres(ctx context.Context, dsn string, cfg Config) (*DB, error) {
	pcfg, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("%w: not a PostgreSQL URL", ErrDSN) // the parser's text may quote the password
	}
	db := newDB(PostgreSQL, cfg, func(db *DB) { db.owned = true })
	if !strings.Contains(dsn, "pool_max_conns=") {
		pcfg.MaxConns = int32(min(db.cfg.MaxConns, 10_000))
	}
	// Without a bound a server that accepts connections and is silent keeps a place of the pool for ever.
	pcfg.ConnConfig.ConnectTimeout = cmp.Or(pcfg.ConnConfig.ConnectTimeout, connectTimeout)
	pool, err := pgxpool.NewWithConfig(ctx, pcfg)
	if err != nil {
		return nil, fmt.Errorf("sqldb: open PostgreSQL at %s: %w", pcfg.ConnConfig.Host, err)
	}
	pooled, err := db.behindPooler(ctx, pool)
	if err == nil && pooled && !strings.Contains(dsn, "default_query_exec_mode=") {
		pool.Close()
		// Statements that are kept at the server would be looked for at another one.
		pcfg.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
		pool, err = pgxpool.NewWithConfig(ctx, pcfg)
		if err != nil {
			return nil, fmt.Errorf("sqldb: open PostgreSQL at %s: %w", pcfg.ConnConfig.Host, err)
		}
		_, err = db.behindPooler(ctx, pool)
	}
	if err != nil {
		err = errors.Join(err, closePool(pool))
		return nil, fmt.Errorf("sqldb: PostgreSQL at %s:%d does not answer: %w", pcfg.ConnConfig.Host, pcfg.ConnConfig.Port,
			err)
	}
	db.pool, db.keeps = pool, keeps(pool)
	return db, nil
}

func openSQLite(ctx context.Context, path string, cfg Config) (*DB, error) {
	if path == "" {
		return nil, fmt.Errorf("%w: sqlite: needs a path", ErrDSN)
	}
	if !slices.Contains(sql.Drivers(), "sqlite") {
		return nil, fmt.Errorf("%w: no SQLite driver is linked: import _ %q", ErrDSN, scope+"/sqlite")
	}
	db := newDB(SQLite, cfg, func(db *DB) { db.owned = true })
	sync := db.cfg.Synchronous
	switch sync {
	case "":
		sync = "FULL"
	case "FULL", "NORMAL", "EXTRA", "OFF":
	default:
		return nil, fmt.Errorf("sqldb: Synchronous %q is none of FULL, NORMAL, EXTRA, OFF", sync)
	}
	path, query, _ := strings.Cut(path, "?")
	params, err := url.ParseQuery(query)
	if err != nil {
		return nil, fmt.Errorf("%w: the parameters of the SQLite path do not parse", ErrDSN)
	}
	params.Add("_pragma", fmt.Sprintf("busy_timeout(%d)", db.cfg.BusyTimeout.Milliseconds()))
	params.Add("_pragma", "synchronous("+sync+")")
	params.Add("_pragma", "foreign_keys(1)")
	name := func(p url.Values) string {
		if path == ":memory:" {
			return ":memory:?" + p.Encode()
		}
		return (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: p.Encode()}).String()
	}

	wparams := url.Values{"_txlock": {"immediate"}}
	for k, v := range params {
		wparams[k] = slices.Clone(v)
	}
	wparams.Add("_pragma", "journal_mode(WAL)") // it lasts in the file, so that readers need not ask
	db.writer, err = db.openHandle(name(wparams))
	if err != nil {
		return nil, fmt.Errorf("sqldb: open SQLite: %w", err)
	}
	db.turn = make(chan struct{}, 1)
	db.writer.SetMaxOpenConns(1)
	db.writer.SetMaxIdleConns(1)
	db.writer.SetConnMaxLifetime(0)
	db.reader = db.writer
	if path != ":memory:" {
		params.Add("_pragma", "query_only(1)")
		if db.reader, err = db.openHandle(name(params)); err != nil {
			return nil, errors.Join(fmt.Errorf("sqldb: open SQLite: %w", err), db.writer.Close())
		}
		db.reader.SetMaxOpenConns(db.cfg.MaxConns)
		db.reader.SetMaxIdleConns(db.cfg.MaxConns)
	}
	db.writes, db.reads = newStatements(db.writer), newStatements(db.reader)
	if err := db.createFile(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("sqldb: open SQLite file %s: %w", path, err), db.Close())
	}
	return db, nil
}

// openHandle opens a handle of SQLite's driver, over WrapConnector where it is set.
func (db *DB) openHandle(dsn string) (*sql.DB, error) {
	handle, err := sql.Open("sqlite", dsn)
	if err != nil || db.cfg.WrapConnector == nil {
		return handle, err
	}
	wrapped := sql.OpenDB(db.cfg.WrapConnector(connector{handle.Driver(), dsn}))
	return wrapped, handle.Close() // which has no connection
}

// connector opens connections of a driver.
type connector struct {
	driver driver.Driver
	dsn    string
}

func (c connector) Connect(context.Context) (driver.Conn, error) { return c.driver.Open(c.dsn) }
func (c connector) Driver() driver.Driver                        { return c.driver }

// createFile opens the writer, which creates the file, in WAL mode, before a reader opens it. SQLite does not wait for
// its busy timeout while another connection changes the journal mode, so the wait is here.
func (db *DB) createFile(ctx context.Context) error {
	wait, cancel := context.WithTimeout(ctx, db.cfg.BusyTimeout)
	defer cancel()
	pause := backoff.Exponential(time.Millisecond, 50*time.Millisecond)
	for attempt := 1; ; attempt++ {
		err := db.writer.PingContext(ctx)
		if err == nil || !isBusy(err) {
			return err
		}
		if backoff.Sleep(wait, pause.Delay(attempt)) != nil {
			return fmt.Errorf("%w: another connection has held it for BusyTimeout, %s: %w", ErrBusy, db.cfg.BusyTimeout, err)
		}
	}
}

// Dialect returns which SQL the database understands.
func (db *DB) Dialect() Dialect { return db.dialect }

// Pool returns the pgx pool, or nil where the database is not spoken to through pgx: for LISTEN and COPY.
func (db *DB) Pool() *pgxpool.Pool { return db.pool }

// Ping asks the database for an answer: for health checks.
func (db *DB) Ping(ctx context.Context) error {
	if err := db.ping(ctx); err != nil {
		return fmt.Errorf("sqldb: ping %s: %w", db.dialect, err)
	}
	return nil
}

func (db *DB) ping(ctx context.Context) error {
	var ping func(context.Context) error
	if db.pool == nil {
		ping = db.reader.PingContext
	} else {
		conn, err := db.acquire(ctx)
		if err != nil {
			return err
		}
		defer conn.Release()
		ping = conn.Ping
	}
	ctx, w := db.wait(ctx)
	defer w.end()
	return w.failed(ping(ctx))
}

// Close closes what Open opened. It waits for connections in use to be given back. On PostgreSQL it gives up after 3
// seconds, with an error, where one is not, or where the server is silent and connections cannot be closed in order.
func (db *DB) Close() error {
	if !db.owned {
		return nil
	}
	if db.pool != nil {
		return closePool(db.pool)
	}
	var err error
	if db.reader != db.writer {
		err = db.reader.Close()
	}
	// The writer goes last: as the last connection it folds the log into the database file.
	return errors.Join(err, db.writer.Close())
}

// SQL returns the database/sql handle that writes, or nil where the database is spoken to through pgx.
func (db *DB) SQL() *sql.DB { return db.writer }
