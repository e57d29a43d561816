-- +goose Up
DROP INDEX IF EXISTS sillar_sagas_due;
-- Each statement names the condition of its index, which no other statement implies. So no other index is chosen for it,
-- however little the database knows of the table.
-- Claim: sagas of a definition whose time has come, and those of an owner.
CREATE INDEX IF NOT EXISTS sillar_sagas_free ON sillar_sagas (name, version, wake_at, id)
    WHERE owner = '' AND status IN ('RUNNING', 'COMPENSATING');
CREATE INDEX IF NOT EXISTS sillar_sagas_owned ON sillar_sagas (owner, name, version, id)
    WHERE owner <> '' AND status IN ('RUNNING', 'COMPENSATING');
-- Shapes.
CREATE INDEX IF NOT EXISTS sillar_sagas_shapes ON sillar_sagas (name, version, shape)
    WHERE shape <> '' AND status IN ('RUNNING', 'COMPENSATING');
-- Prune: wake_at is when a finished saga ended.
CREATE INDEX IF NOT EXISTS sillar_sagas_ended ON sillar_sagas (wake_at, id)
    WHERE status IN ('COMPLETED', 'COMPENSATED');

-- +goose Down
DROP INDEX sillar_sagas_ended;
DROP INDEX sillar_sagas_shapes;
DROP INDEX sillar_sagas_owned;
DROP INDEX sillar_sagas_free;
CREATE INDEX sillar_sagas_due ON sillar_sagas (wake_at, id) WHERE status IN ('RUNNING', 'COMPENSATING');
