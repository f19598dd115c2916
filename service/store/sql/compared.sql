-- Any two methods on the tokens of a view: built after contract.sql, over its macros; $data is as there.

CREATE TABLE _measurements AS FROM catalog.measurements;

-- What every registered method decides of the counted tokens of an analysis: one BOOLEAN column a method, NULL where it
-- is not known. segment_row is the token's row in its step's segment. Taken for large, so that only the files of the
-- analysis that is asked for are read.
CREATE VIEW _decisions AS
SELECT m.analysis, t.* EXCLUDE (measurement)
FROM read_parquet(coalesce(getvariable('dppo_data'), '$data') || '/decisions/*/*.parquet',
    hive_partitioning = true, hive_types_autocast = false, explicit_cardinality = 10000000) t
JOIN _measurements m ON m.measurement = t.measurement;

-- The tokens that a registered method does not keep: dropped, or NULL for not known. 'ppo' and 'dppo' are decided live
-- and have none.
CREATE MACRO _not_kept(analysis_, method_) AS TABLE
FROM (
    SELECT step, segment_row,
        COLUMNS('^' || CASE WHEN method_ IN ('ppo', 'dppo') THEN 'segment_row' ELSE method_ END || '$')::BOOLEAN AS keep
    FROM _decisions WHERE analysis = analysis_ AND method_ NOT IN ('ppo', 'dppo'))
WHERE keep IS DISTINCT FROM true;

-- The counted tokens of a view and the divergence that it chose, before any threshold.
CREATE MACRO _measured(analysis_, anchor_, evaluated_at_, divergence_) AS TABLE
SELECT t.*, _divergence(divergence_, t) AS divergence FROM _paired(analysis_, anchor_, evaluated_at_) t WHERE counted;

-- Whether a token lies inside a rectangle of a plane: its anchor probability, and its ratio or its divergence. A NULL
-- bound is none.
CREATE MACRO _brushed(plane, logp_anchor, log_ratio, divergence, p_low, p_high, y_low, y_high) AS
    (p_low IS NULL OR logp_anchor >= ln(greatest(p_low, 1e-300)))
    AND (p_high IS NULL OR logp_anchor <= ln(greatest(p_high, 1e-300)))
    AND (y_low IS NULL OR CASE plane WHEN 'ratio' THEN log_ratio >= ln(greatest(y_low, 1e-300)) ELSE divergence >= y_low END)
    AND (y_high IS NULL OR CASE plane WHEN 'ratio' THEN log_ratio <= ln(greatest(y_high, 1e-300)) ELSE divergence <= y_high END);

-- The counted tokens of a view under any two methods: `first` and `second` keep or drop the token. 'ppo' and 'dppo' are
-- decided here, other methods as measured. cell: both_keep, <first>_only_drops, <second>_only_drops, both_drop, …
CREATE MACRO _compared(analysis_, anchor_, evaluated_at_, divergence_, eps_low_, eps_high_, dual_clip_, delta_low_,
    delta_high_, weight_cap_, first_, second_, step_, plane_, p_low_, p_high_, brush_low_, brush_high_) AS TABLE
SELECT *, CASE WHEN first IS NULL OR second IS NULL THEN 'unknown' WHEN advantage = 0 THEN 'no_gradient'
    WHEN first AND second THEN 'both_keep' WHEN second THEN first_ || '_only_drops'
    WHEN first THEN second_ || '_only_drops' ELSE 'both_drop' END AS cell
FROM (
    SELECT d.* EXCLUDE (cell),
        CASE first_ WHEN 'ppo' THEN ppo WHEN 'dppo' THEN dppo ELSE f.segment_row IS NULL OR f.keep END AS first,
        CASE second_ WHEN 'ppo' THEN ppo WHEN 'dppo' THEN dppo ELSE s.segment_row IS NULL OR s.keep END AS second
    FROM _decided(analysis_, anchor_, evaluated_at_, divergence_, eps_low_, eps_high_, dual_clip_, delta_low_,
        delta_high_, weight_cap_) d
    LEFT JOIN _not_kept(analysis_, first_) f ON f.step = d.step AND f.segment_row = d.segment_row
    LEFT JOIN _not_kept(analysis_, second_) s ON s.step = d.step AND s.segment_row = d.segment_row
    WHERE (step_ IS NULL OR d.step = step_)
        AND _brushed(plane_, logp_anchor, log_ratio, divergence, p_low_, p_high_, brush_low_, brush_high_));

-- Bins of a probability and of an entropy (nats): edges, and the place of a value among them.
CREATE MACRO _probability_edges() AS [0, 1e-4, 1e-3, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 1];
CREATE MACRO _probability_bin(logp) AS (logp >= ln(1e-4))::INT + (logp >= ln(1e-3))::INT + (logp >= ln(0.01))::INT
    + (logp >= ln(0.05))::INT + (logp >= ln(0.1))::INT + (logp >= ln(0.25))::INT + (logp >= ln(0.5))::INT
    + (logp >= ln(0.75))::INT + (logp >= ln(0.9))::INT + (logp >= ln(0.99))::INT + (logp >= ln(0.999))::INT;
CREATE MACRO _entropy_edges() AS [0, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 1.5, 2, 3];
CREATE MACRO _entropy_bin(nats) AS (nats >= 0.01)::INT + (nats >= 0.05)::INT + (nats >= 0.1)::INT
    + (nats >= 0.25)::INT + (nats >= 0.5)::INT + (nats >= 1)::INT + (nats >= 1.5)::INT + (nats >= 2)::INT
    + (nats >= 3)::INT;

-- A bootstrap over prompts. Every replicate draws as many groups as there are, with replacement: its draw number
-- `draw` is the group at place `_drawn(replicate, draw, n)`. Integers mixed by a fixed permutation of 32 bits (a
-- multiply-xorshift), so that the same groups give the same intervals everywhere.
CREATE MACRO _xorshift(x, bits) AS xor(x, x >> bits);
CREATE MACRO _times(x, factor) AS (x * factor) & 4294967295;
CREATE MACRO _mixed(x) AS
    _xorshift(_times(_xorshift(_times(_xorshift(x::UBIGINT, 16), 2146121005::UBIGINT), 15), 2221713035::UBIGINT), 16);
CREATE MACRO _drawn(replicate, draw, n) AS (_mixed((replicate * 1048576 + draw) & 4294967295) % n)::BIGINT;

-- A statistic over the replicates from 0 on: its 95 % percentile interval; replicate -1 is what was seen. _column: one
-- value a place, in their order, as the weights of a replicate have them.
CREATE MACRO _column(value, place) AS list(coalesce(value, 0)::DOUBLE ORDER BY place);
CREATE MACRO _seen(value, replicate) AS max(value) FILTER (replicate < 0);
CREATE MACRO _low(value, replicate) AS quantile_cont(value, 0.025) FILTER (replicate >= 0);
CREATE MACRO _high(value, replicate) AS quantile_cont(value, 0.975) FILTER (replicate >= 0);
