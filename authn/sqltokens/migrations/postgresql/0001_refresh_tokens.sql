-- +goose Up
CREATE TABLE IF NOT EXISTS sillar_refresh_tokens (
    hash           TEXT PRIMARY KEY, -- SHA-256 of the token, in hexadecimal
    family         TEXT NOT NULL,
    subject        TEXT NOT NULL,
    profile        TEXT NOT NULL, -- roles and claims, JSON
    created_at     BIGINT NOT NULL, -- times are microseconds since 1970, UTC; 0 means none
    expires_at     BIGINT NOT NULL,
    family_ends_at BIGINT NOT NULL,
    used_at        BIGINT NOT NULL
);
CREATE INDEX IF NOT EXISTS sillar_refresh_tokens_family ON sillar_refresh_tokens (family);
CREATE INDEX IF NOT EXISTS sillar_refresh_tokens_subject ON sillar_refresh_tokens (subject);
CREATE INDEX IF NOT EXISTS sillar_refresh_tokens_expiry ON sillar_refresh_tokens (expires_at);
CREATE TABLE IF NOT EXISTS sillar_revoked_tokens (
    id         TEXT PRIMARY KEY, -- the access token's jti
    expires_at BIGINT NOT NULL
);
CREATE INDEX IF NOT EXISTS sillar_revoked_tokens_expiry ON sillar_revoked_tokens (expires_at);

-- +goose Down
DROP TABLE sillar_revoked_tokens;
DROP TABLE sillar_refresh_tokens;
