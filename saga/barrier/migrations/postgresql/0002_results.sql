-- +goose Up
CREATE TABLE IF NOT EXISTS sillar_barrier_results (
    step       TEXT NOT NULL,
    op         TEXT NOT NULL,
    result     TEXT NOT NULL, -- JSON
    created_at BIGINT NOT NULL, -- microseconds since 1970, UTC
    PRIMARY KEY (step, op)
);
CREATE INDEX IF NOT EXISTS sillar_barrier_results_created ON sillar_barrier_results (created_at);
-- Prune reads what it deletes.
CREATE INDEX IF NOT EXISTS sillar_barrier_created ON sillar_barrier (created_at);

-- +goose Down
DROP INDEX sillar_barrier_created;
DROP TABLE sillar_barrier_results;
