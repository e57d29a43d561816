-- +goose Up
CREATE TABLE IF NOT EXISTS sillar_api_keys (
    id             TEXT PRIMARY KEY,
    subject        TEXT NOT NULL,
    name           TEXT NOT NULL,
    profile        TEXT NOT NULL, -- roles, scopes and claims, JSON
    hash           TEXT NOT NULL, -- SHA-256 of the secret, in hexadecimal
    previous_hash  TEXT NOT NULL,
    previous_until BIGINT NOT NULL, -- times are microseconds since 1970, UTC; 0 means none
    created_at     BIGINT NOT NULL,
    rotated_at     BIGINT NOT NULL,
    expires_at     BIGINT NOT NULL
);
CREATE INDEX IF NOT EXISTS sillar_api_keys_subject ON sillar_api_keys (subject);
CREATE INDEX IF NOT EXISTS sillar_api_keys_expiry ON sillar_api_keys (expires_at);

-- +goose Down
DROP TABLE sillar_api_keys;
