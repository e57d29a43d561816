-- +goose Up
-- What stops a key is looked for by each claim, and is little: events that are published, and those that are held back.
CREATE INDEX IF NOT EXISTS sillar_outbox_leased ON sillar_outbox (key) WHERE leased_until > 0;
CREATE INDEX IF NOT EXISTS sillar_outbox_held ON sillar_outbox (key, seq) WHERE due_at > 0;

-- +goose Down
DROP INDEX sillar_outbox_held;
DROP INDEX sillar_outbox_leased;
