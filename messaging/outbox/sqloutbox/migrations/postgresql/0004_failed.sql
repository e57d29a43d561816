-- +goose Up
-- Operators retry what is held without a look at the events that are stored with a later time of delivery.
CREATE INDEX IF NOT EXISTS sillar_outbox_failed ON sillar_outbox (seq)
    WHERE due_at <> 0 AND NOT (due_at < -1 AND attempts = 0);

-- +goose Down
DROP INDEX sillar_outbox_failed;
