-- +goose Up
-- Times are text of one width in UTC (2006-01-02T15:04:05.000000Z), so that
-- they sort as they are. Columns are what queries ask for; the rest of a
-- resource is JSON in body.

CREATE TABLE store (
	id         TEXT PRIMARY KEY,
	realm      TEXT NOT NULL,
	url        TEXT NOT NULL UNIQUE,
	is_default INTEGER NOT NULL CHECK (is_default IN (0, 1)),
	created    TEXT NOT NULL
);
CREATE UNIQUE INDEX store_default ON store (is_default) WHERE is_default = 1;

CREATE TABLE vault (
	name TEXT PRIMARY KEY,
	body TEXT NOT NULL
);

CREATE TABLE policy (
	vault TEXT NOT NULL REFERENCES vault (name),
	name  TEXT NOT NULL,
	body  TEXT NOT NULL,
	PRIMARY KEY (vault, name)
);

CREATE TABLE instance (
	id     TEXT PRIMARY KEY,
	name   TEXT NOT NULL UNIQUE,
	disk   TEXT NOT NULL,
	vault  TEXT NOT NULL,
	policy TEXT NOT NULL,
	store  TEXT NOT NULL REFERENCES store (id),
	body   TEXT NOT NULL,
	FOREIGN KEY (vault, policy) REFERENCES policy (vault, name)
);
CREATE INDEX instance_disk ON instance (disk);

CREATE TABLE point (
	id       TEXT PRIMARY KEY,
	instance TEXT NOT NULL REFERENCES instance (id),
	store    TEXT NOT NULL REFERENCES store (id),
	time     TEXT NOT NULL,
	created  TEXT NOT NULL,
	verified TEXT,
	body     TEXT NOT NULL
);
CREATE INDEX point_instance ON point (instance, created);

CREATE TABLE job (
	id          TEXT PRIMARY KEY,
	instance_id TEXT NOT NULL,
	instance    TEXT NOT NULL,
	operation   TEXT NOT NULL,
	trigger_by  TEXT NOT NULL,
	status      TEXT NOT NULL CHECK (status IN ('Queued', 'InProgress', 'Completed', 'CompletedWithWarnings', 'Failed', 'Cancelled')),
	created     TEXT NOT NULL,
	started     TEXT,
	ended       TEXT,
	done        BIGINT NOT NULL DEFAULT 0,
	total       BIGINT NOT NULL DEFAULT 0,
	progress    TEXT,
	error       TEXT,
	record      TEXT,
	result      TEXT,
	CHECK ((ended IS NOT NULL) = (status NOT IN ('Queued', 'InProgress'))),
	CHECK (status <> 'Queued' OR started IS NULL),
	CHECK (status <> 'InProgress' OR started IS NOT NULL)
);
CREATE INDEX job_created ON job (created);
CREATE INDEX job_instance ON job (instance_id, created);
CREATE INDEX job_open ON job (status) WHERE ended IS NULL;

-- Facts about this data folder that are no resource of their own.
CREATE TABLE fact (
	name  TEXT PRIMARY KEY,
	value TEXT NOT NULL
);

-- +goose Down
DROP TABLE fact;
DROP TABLE job;
DROP TABLE point;
DROP TABLE instance;
DROP TABLE policy;
DROP TABLE vault;
DROP TABLE store;
