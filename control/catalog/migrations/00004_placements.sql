-- +goose Up
-- A point has a placement for each store that holds it, or held it once. What
-- depends on the store moves there.

CREATE TABLE placement (
	point     TEXT NOT NULL REFERENCES point (id),
	store     TEXT NOT NULL REFERENCES store (id),
	instance  TEXT NOT NULL REFERENCES instance (id),
	tier      TEXT NOT NULL CHECK (tier IN ('OperationalStore', 'VaultStore')),
	state     TEXT NOT NULL CHECK (state IN ('Committed', 'Deleted')), -- Deleted: on purpose, so that no copy brings it back
	created   TEXT NOT NULL, -- of the point
	committed TEXT NOT NULL, -- when the store got it
	keep      TEXT NOT NULL, -- how long from created on, as a duration of ISO 8601; empty: until somebody deletes it
	expires   TEXT,          -- not before this moment; only to find those that may have expired
	good      INTEGER NOT NULL CHECK (good IN (0, 1)), -- it is of one point in time
	verified  TEXT,          -- when all its data were last read back
	PRIMARY KEY (point, store)
);
INSERT INTO placement (point, store, instance, tier, state, created, committed, keep, expires, good, verified)
SELECT id, store, instance, 'OperationalStore', 'Committed', created, created, keep, expires, good, verified FROM point;
CREATE INDEX placement_instance ON placement (instance, store, created, point);
CREATE INDEX placement_expires ON placement (instance, expires) WHERE state = 'Committed';
CREATE INDEX placement_store ON placement (store);

DROP INDEX point_expires;
ALTER TABLE point DROP COLUMN keep;
ALTER TABLE point DROP COLUMN expires;
ALTER TABLE point DROP COLUMN good;
ALTER TABLE point DROP COLUMN verified;
-- Until when the vault tier wants to have it; NULL: it never does.
ALTER TABLE point ADD COLUMN vault_until TEXT;
CREATE INDEX point_vault ON point (vault_until) WHERE vault_until IS NOT NULL;

-- +goose Down
-- There is no way back: the store's records are what an older version rebuilds
-- its catalog from.
SELECT 1;
