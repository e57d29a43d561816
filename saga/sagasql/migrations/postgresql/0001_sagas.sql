-- +goose Up
CREATE TABLE IF NOT EXISTS sillar_sagas (
    id          TEXT PRIMARY KEY,
    name        TEXT NOT NULL,
    version     INTEGER NOT NULL,
    shape       TEXT NOT NULL,
    status      TEXT NOT NULL,
    position    INTEGER NOT NULL,
    state       TEXT NOT NULL,
    steps       TEXT NOT NULL,
    failed_step TEXT NOT NULL DEFAULT '',
    cause       TEXT NOT NULL DEFAULT '',
    headers     TEXT NOT NULL,
    audit       TEXT NOT NULL,
    revision    BIGINT NOT NULL,
    fence       BIGINT NOT NULL,
    owner       TEXT NOT NULL DEFAULT '',
    wake_at     BIGINT NOT NULL, -- times are microseconds since 1970, UTC
    signals     TEXT NOT NULL,
    signal_seq  BIGINT NOT NULL,
    created_at  BIGINT NOT NULL,
    updated_at  BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS sillar_orchestrators (
    node       TEXT PRIMARY KEY,
    expires_at BIGINT NOT NULL
);

-- +goose Down
DROP TABLE sillar_orchestrators;
DROP TABLE sillar_sagas;
