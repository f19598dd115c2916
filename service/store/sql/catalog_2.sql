-- What every method decides of an analysis's tokens lies in the folder decisions/measurement=<id>.
CREATE TABLE measurements (analysis VARCHAR NOT NULL, measurement VARCHAR NOT NULL, columns VARCHAR[] NOT NULL);
UPDATE meta SET value = '2' WHERE key = 'schema_version';
