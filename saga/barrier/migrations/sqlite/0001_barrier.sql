-- +goose Up
CREATE TABLE IF NOT EXISTS sillar_barrier (
    step       TEXT NOT NULL, -- sagaID/step
    op         TEXT NOT NULL, -- do or undo
    set_by     TEXT NOT NULL, -- the op that set the row: an undo that comes first shuts the door to its do
    created_at BIGINT NOT NULL, -- microseconds since 1970, UTC
    PRIMARY KEY (step, op)
);

-- +goose Down
DROP TABLE sillar_barrier;
