-- +goose Up
-- New events are claimed without a look at those that are held: due_at is 0 when new, negative where the held event does
-- not stop its key.
CREATE INDEX IF NOT EXISTS sillar_outbox_new ON sillar_outbox (seq) WHERE due_at = 0;
CREATE INDEX IF NOT EXISTS sillar_outbox_retry ON sillar_outbox (abs(due_at)) WHERE due_at <> 0;

-- +goose Down
DROP INDEX sillar_outbox_retry;
DROP INDEX sillar_outbox_new;
