-- +goose Up
-- A step changes no indexed column. Room in the page lets PostgreSQL keep the new version of the row there, without an
-- entry in each index.
ALTER TABLE sillar_sagas SET (fillfactor = 50);

-- +goose Down
ALTER TABLE sillar_sagas RESET (fillfactor);
