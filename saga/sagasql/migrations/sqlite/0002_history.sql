-- +goose Up
CREATE TABLE IF NOT EXISTS sillar_saga_history (
    saga_id     TEXT NOT NULL,
    revision    BIGINT NOT NULL,
    fence       BIGINT NOT NULL,
    owner       TEXT NOT NULL,
    status      TEXT NOT NULL,
    position    INTEGER NOT NULL,
    steps       TEXT NOT NULL,
    failed_step TEXT NOT NULL,
    cause       TEXT NOT NULL,
    at          BIGINT NOT NULL, -- microseconds since 1970, UTC
    PRIMARY KEY (saga_id, revision)
);

-- +goose Down
DROP TABLE sillar_saga_history;
