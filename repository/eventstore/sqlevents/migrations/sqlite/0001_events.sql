-- +goose Up
CREATE TABLE IF NOT EXISTS sillar_streams (
    stream  TEXT PRIMARY KEY,
    version INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS sillar_events (
    position    INTEGER PRIMARY KEY AUTOINCREMENT, -- one writer: the order of commits
    stream      TEXT NOT NULL,
    version     INTEGER NOT NULL,
    id          TEXT NOT NULL UNIQUE,
    type        TEXT NOT NULL,
    schema      INTEGER NOT NULL,
    data        TEXT NOT NULL,
    metadata    TEXT NOT NULL,
    recorded_at INTEGER NOT NULL, -- microseconds since 1970, UTC
    UNIQUE (stream, version)
);
CREATE TABLE IF NOT EXISTS sillar_snapshots (
    stream  TEXT NOT NULL,
    schema  INTEGER NOT NULL,
    version INTEGER NOT NULL,
    state   TEXT NOT NULL,
    PRIMARY KEY (stream, schema)
);
CREATE TABLE IF NOT EXISTS sillar_checkpoints (
    projection TEXT PRIMARY KEY,
    place      TEXT NOT NULL
);

-- +goose Down
DROP TABLE sillar_checkpoints;
DROP TABLE sillar_snapshots;
DROP TABLE sillar_events;
DROP TABLE sillar_streams;
