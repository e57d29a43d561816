-- +goose Up
-- List and Count: sagas in the order of their start, with and without a name. The indexes by id were made by an older
-- version of the migration before this one.
DROP INDEX IF EXISTS sillar_sagas_name;
DROP INDEX IF EXISTS sillar_sagas_status;
CREATE INDEX IF NOT EXISTS sillar_sagas_by_status ON sillar_sagas (status, created_at, id) WHERE version > 0;
CREATE INDEX IF NOT EXISTS sillar_sagas_by_name ON sillar_sagas (name, status, created_at, id) WHERE id <> '';
-- Search attributes. created_at is that of the saga, so that its sagas are read in the order of their start.
CREATE TABLE IF NOT EXISTS sillar_saga_attributes (
    name       TEXT NOT NULL,
    value      TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    saga_id    TEXT NOT NULL,
    PRIMARY KEY (name, value, created_at, saga_id)
);
CREATE INDEX IF NOT EXISTS sillar_saga_attributes_saga ON sillar_saga_attributes (saga_id);

-- +goose Down
DROP TABLE sillar_saga_attributes;
DROP INDEX sillar_sagas_by_name;
DROP INDEX sillar_sagas_by_status;
