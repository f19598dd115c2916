-- How many tokens of a scoring have each anchor, evaluation point and estimate; written with the files that say which of
-- them moved. A scoring of an earlier version gets both when the store is opened.
CREATE TABLE availability (
    scoring VARCHAR PRIMARY KEY, "rollout/start/binary" UBIGINT NOT NULL, "rollout/start/topk" UBIGINT NOT NULL,
    "rollout/end/binary" UBIGINT NOT NULL, "rollout/end/topk" UBIGINT NOT NULL, "rollout/logged/binary" UBIGINT NOT NULL,
    "old/start/binary" UBIGINT NOT NULL, "old/start/topk" UBIGINT NOT NULL, "old/start/exact" UBIGINT NOT NULL,
    "old/end/binary" UBIGINT NOT NULL, "old/end/topk" UBIGINT NOT NULL, "old/end/exact" UBIGINT NOT NULL,
    "old/logged/binary" UBIGINT NOT NULL
);
UPDATE meta SET value = '3' WHERE key = 'schema_version';
