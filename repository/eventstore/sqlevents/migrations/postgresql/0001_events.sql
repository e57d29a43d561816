-- +goose Up
CREATE TABLE IF NOT EXISTS sillar_streams (
    stream   TEXT PRIMARY KEY,
    version  BIGINT NOT NULL,
    last_xid XID8 NOT NULL -- of the transaction that appended last: a later version never has a smaller one
);
CREATE TABLE IF NOT EXISTS sillar_events (
    stream      TEXT NOT NULL,
    version     BIGINT NOT NULL,
    position    BIGINT GENERATED ALWAYS AS IDENTITY,
    xid         XID8 NOT NULL,
    id          TEXT NOT NULL UNIQUE,
    type        TEXT NOT NULL,
    schema      INTEGER NOT NULL,
    data        JSON NOT NULL,
    metadata    JSON NOT NULL,
    recorded_at BIGINT NOT NULL, -- microseconds since 1970, UTC
    PRIMARY KEY (stream, version)
);
CREATE INDEX IF NOT EXISTS sillar_events_order ON sillar_events (xid, position);
CREATE TABLE IF NOT EXISTS sillar_snapshots (
    stream  TEXT NOT NULL,
    schema  INTEGER NOT NULL,
    version BIGINT NOT NULL,
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
