-- +goose Up
CREATE TABLE IF NOT EXISTS sillar_outbox (
	seq          BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	id           TEXT   NOT NULL,
	topic        TEXT   NOT NULL,
	source       TEXT   NOT NULL,
	key          TEXT   NOT NULL,
	content_type TEXT   NOT NULL,
	occurred_at  BIGINT NOT NULL, -- microseconds since 1970, as all times here
	headers      TEXT   NOT NULL, -- JSON
	body         BYTEA  NOT NULL,
	created_at   BIGINT NOT NULL,
	attempts     BIGINT NOT NULL DEFAULT 0,
	due_at       BIGINT NOT NULL DEFAULT 0,
	owner        TEXT   NOT NULL DEFAULT '',
	leased_until BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS sillar_outbox_key ON sillar_outbox (key, seq);

-- +goose Down
DROP TABLE sillar_outbox;
