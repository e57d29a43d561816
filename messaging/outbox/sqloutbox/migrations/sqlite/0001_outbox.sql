-- +goose Up
CREATE TABLE IF NOT EXISTS sillar_outbox (
	seq          INTEGER PRIMARY KEY AUTOINCREMENT,
	id           TEXT    NOT NULL,
	topic        TEXT    NOT NULL,
	source       TEXT    NOT NULL,
	key          TEXT    NOT NULL,
	content_type TEXT    NOT NULL,
	occurred_at  INTEGER NOT NULL, -- microseconds since 1970, as all times here
	headers      TEXT    NOT NULL, -- JSON
	body         BLOB    NOT NULL,
	created_at   INTEGER NOT NULL,
	attempts     INTEGER NOT NULL DEFAULT 0,
	due_at       INTEGER NOT NULL DEFAULT 0,
	owner        TEXT    NOT NULL DEFAULT '',
	leased_until INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS sillar_outbox_key ON sillar_outbox (key, seq);

-- +goose Down
DROP TABLE sillar_outbox;
