-- +goose Up
-- Resources get the IDs of ARM. A key is such an ID in small letters. Tables
-- that change are made anew beside the old ones, children last, so that no
-- reference is ever broken: SQLite checks them while it drops a table.

CREATE TABLE vault_new (
	key          TEXT PRIMARY KEY,
	subscription TEXT NOT NULL,
	grp          TEXT NOT NULL,
	body         TEXT NOT NULL
);
INSERT INTO vault_new (key, subscription, grp, body)
SELECT '/subscriptions/00000000-0000-0000-0000-000000000001/resourcegroups/diskvault/providers/microsoft.dataprotection/backupvaults/' || lower(name),
	'00000000-0000-0000-0000-000000000001', 'diskvault', body FROM vault;

CREATE TABLE policy_new (
	key   TEXT PRIMARY KEY,
	vault TEXT NOT NULL REFERENCES vault_new (key),
	body  TEXT NOT NULL
);
INSERT INTO policy_new (key, vault, body)
SELECT '/subscriptions/00000000-0000-0000-0000-000000000001/resourcegroups/diskvault/providers/microsoft.dataprotection/backupvaults/' || lower(vault) || '/backuppolicies/' || lower(name),
	'/subscriptions/00000000-0000-0000-0000-000000000001/resourcegroups/diskvault/providers/microsoft.dataprotection/backupvaults/' || lower(vault), body FROM policy;

CREATE TABLE instance_new (
	id        TEXT PRIMARY KEY,
	key       TEXT NOT NULL UNIQUE,
	name      TEXT NOT NULL,
	disk      TEXT NOT NULL,
	disk_key  TEXT NOT NULL,   -- of the disk's resource; empty: it has only a path
	snapshots TEXT NOT NULL DEFAULT '', -- key of the snapshot resource group
	vault     TEXT NOT NULL REFERENCES vault_new (key),
	policy    TEXT NOT NULL REFERENCES policy_new (key),
	store     TEXT NOT NULL REFERENCES store (id),
	state     TEXT NOT NULL,
	purge     TEXT,            -- when a deleted one is purged
	last_slot TEXT,            -- of the schedule, that a run was made for
	good_slot TEXT,            -- of the last such run that succeeded
	next_run  TEXT,            -- when the scheduler looks at it again; NULL: at once
	body      TEXT NOT NULL
);
-- Names differed by case alone once; an instance's own ID then tells them apart.
INSERT INTO instance_new (id, key, name, disk, disk_key, vault, policy, store, state, body)
SELECT id,
	'/subscriptions/00000000-0000-0000-0000-000000000001/resourcegroups/diskvault/providers/microsoft.dataprotection/backupvaults/' || lower(vault) || '/backupinstances/' || lower(name)
		|| CASE WHEN EXISTS (SELECT 1 FROM instance AS other WHERE lower(other.name) = lower(instance.name) AND other.id < instance.id) THEN '~' || id ELSE '' END,
	name, disk, '',
	'/subscriptions/00000000-0000-0000-0000-000000000001/resourcegroups/diskvault/providers/microsoft.dataprotection/backupvaults/' || lower(vault),
	'/subscriptions/00000000-0000-0000-0000-000000000001/resourcegroups/diskvault/providers/microsoft.dataprotection/backupvaults/' || lower(vault) || '/backuppolicies/' || lower(policy),
	store, 'ProtectionConfigured', body FROM instance;

CREATE TABLE point_new (
	id       TEXT PRIMARY KEY,
	instance TEXT NOT NULL REFERENCES instance_new (id),
	store    TEXT NOT NULL REFERENCES store (id),
	time     TEXT NOT NULL,
	created  TEXT NOT NULL,
	tag      TEXT NOT NULL,
	keep     TEXT NOT NULL,    -- how long, as a duration of ISO 8601; empty: until somebody deletes it
	expires  TEXT,             -- not before this moment; only to find those that may have expired
	good     INTEGER NOT NULL CHECK (good IN (0, 1)), -- it is of one point in time
	verified TEXT,
	body     TEXT NOT NULL
);
-- The next migration reads what is in the bodies.
INSERT INTO point_new (id, instance, store, time, created, tag, keep, expires, good, verified, body)
SELECT id, instance, store, time, created, '', '', NULL, 0, verified, body FROM point;

DROP TABLE point;
DROP TABLE instance;
DROP TABLE policy;
DROP TABLE vault;
ALTER TABLE vault_new RENAME TO vault;
ALTER TABLE policy_new RENAME TO policy;
ALTER TABLE instance_new RENAME TO instance;
ALTER TABLE point_new RENAME TO point;
CREATE INDEX vault_group ON vault (subscription, grp, key);
CREATE INDEX policy_vault ON policy (vault, key);
CREATE INDEX instance_vault ON instance (vault, key);
CREATE INDEX instance_policy ON instance (policy);
CREATE INDEX instance_name ON instance (name);
CREATE INDEX instance_disk ON instance (disk);
CREATE INDEX instance_disk_key ON instance (disk_key);
-- A disk is protected once in all vaults.
CREATE UNIQUE INDEX instance_one ON instance (disk_key) WHERE disk_key <> '' AND purge IS NULL;
CREATE INDEX instance_snapshots ON instance (snapshots);
CREATE INDEX instance_next ON instance (next_run);
CREATE INDEX instance_purge ON instance (purge) WHERE purge IS NOT NULL;
CREATE INDEX point_instance ON point (instance, created, id);
CREATE INDEX point_expires ON point (instance, expires);

-- Jobs: whose they are, which host runs them, and what a queued one is to do.
ALTER TABLE job ADD COLUMN vault TEXT NOT NULL DEFAULT '';
ALTER TABLE job ADD COLUMN disk TEXT NOT NULL DEFAULT '';
ALTER TABLE job ADD COLUMN host TEXT NOT NULL DEFAULT '';
ALTER TABLE job ADD COLUMN queued INTEGER NOT NULL DEFAULT 0 CHECK (queued IN (0, 1));
ALTER TABLE job ADD COLUMN beat TEXT;
ALTER TABLE job ADD COLUMN extra TEXT;
ALTER TABLE job ADD COLUMN attempt INTEGER NOT NULL DEFAULT 0;
ALTER TABLE job ADD COLUMN cancel INTEGER NOT NULL DEFAULT 0 CHECK (cancel IN (0, 1)); -- somebody asked for its end
-- One queued backup of an instance at a time.
CREATE UNIQUE INDEX job_one_backup ON job (instance_id) WHERE queued = 1 AND ended IS NULL AND operation = 'Backup';
CREATE INDEX job_waiting ON job (id) WHERE queued = 1 AND ended IS NULL;
CREATE INDEX job_vault ON job (vault, created, id);

-- Resources of which diskvault asks little: groups, disks, snapshots, role
-- definitions and assignments, principals, guards, operations.
CREATE TABLE resource (
	key          TEXT PRIMARY KEY,
	type         TEXT NOT NULL,
	subscription TEXT NOT NULL,
	grp          TEXT NOT NULL,
	link         TEXT NOT NULL, -- what it is looked up by besides its key
	body         TEXT NOT NULL
);
CREATE INDEX resource_type ON resource (type, key);
CREATE INDEX resource_group ON resource (subscription, grp, type, key);
CREATE INDEX resource_link ON resource (type, link);

CREATE TABLE audit (
	id        TEXT PRIMARY KEY,
	time      TEXT NOT NULL,
	principal TEXT NOT NULL,
	target    TEXT NOT NULL,
	outcome   TEXT NOT NULL,
	body      TEXT NOT NULL
);
CREATE INDEX audit_time ON audit (time, id);
CREATE INDEX audit_target ON audit (target, time);

-- +goose Down
-- There is no way back: the store's records are what an older version rebuilds
-- its catalog from.
SELECT 1;
