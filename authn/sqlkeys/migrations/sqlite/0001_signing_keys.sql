-- +goose Up
CREATE TABLE IF NOT EXISTS sillar_signing_keys (
    name    TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    sealed  BLOB NOT NULL -- encrypted
);

-- +goose Down
DROP TABLE sillar_signing_keys;
