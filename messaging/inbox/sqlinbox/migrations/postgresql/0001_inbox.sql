-- +goose Up
CREATE TABLE IF NOT EXISTS sillar_inbox (
	consumer   TEXT NOT NULL,
	id         TEXT NOT NULL,
	applied_at BIGINT NOT NULL, -- microseconds since 1970
	PRIMARY KEY (consumer, id)
);
CREATE INDEX IF NOT EXISTS sillar_inbox_applied_at ON sillar_inbox (applied_at);

-- +goose Down
DROP TABLE sillar_inbox;
