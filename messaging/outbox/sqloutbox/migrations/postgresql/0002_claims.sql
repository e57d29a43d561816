-- +goose Up
CREATE INDEX IF NOT EXISTS sillar_outbox_leased ON sillar_outbox (key) WHERE leased_until > 0;
CREATE INDEX IF NOT EXISTS sillar_outbox_held ON sillar_outbox (key, seq) WHERE due_at > 0;

-- +goose Down
DROP INDEX sillar_outbox_held;
DROP INDEX sillar_outbox_leased;
