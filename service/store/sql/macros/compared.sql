-- Any two methods on the tokens of a view, one by one and as counts; a bootstrap over prompts.

-- The tokens that a registered method does not keep: dropped, or NULL for not known. 'ppo' and 'dppo' are decided live
-- and have none.
CREATE MACRO _not_kept(analysis_, method_) AS TABLE
FROM (
    SELECT step, segment_row,
        COLUMNS('^' || CASE WHEN method_ IN ('ppo', 'dppo') THEN 'segment_row' ELSE method_ END || '$')::BOOLEAN AS keep
    FROM _decisions WHERE analysis = analysis_ AND method_ NOT IN ('ppo', 'dppo'))
WHERE keep IS DISTINCT FROM true;

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
    delta_high_, weight_cap_, first_, second_, step_, plane_, p_low_, p_high_, brush_low_, brush_high_, quick_ := false) AS TABLE
SELECT *, CASE WHEN first IS NULL OR second IS NULL THEN 'unknown' WHEN advantage = 0 THEN 'no_gradient'
    WHEN first AND second THEN 'both_keep' WHEN second THEN first_ || '_only_drops'
    WHEN first THEN second_ || '_only_drops' ELSE 'both_drop' END AS cell
FROM (
    SELECT d.* EXCLUDE (cell),
        CASE first_ WHEN 'ppo' THEN ppo WHEN 'dppo' THEN dppo ELSE f.segment_row IS NULL OR f.keep END AS first,
        CASE second_ WHEN 'ppo' THEN ppo WHEN 'dppo' THEN dppo ELSE s.segment_row IS NULL OR s.keep END AS second
    FROM _decided(analysis_, anchor_, evaluated_at_, divergence_, eps_low_, eps_high_, dual_clip_, delta_low_,
        delta_high_, weight_cap_, quick_ := quick_) d
    LEFT JOIN _not_kept(analysis_, first_) f ON f.step = d.step AND f.segment_row = d.segment_row
    LEFT JOIN _not_kept(analysis_, second_) s ON s.step = d.step AND s.segment_row = d.segment_row
    WHERE (step_ IS NULL OR d.step = step_)
        AND _brushed(plane_, logp_anchor, log_ratio, divergence, p_low_, p_high_, brush_low_, brush_high_));

-- The same as counts: a row a token, or, where `quick_` says that the view's methods keep all quiet tokens, a row a moved
-- token and the sums of the quiet ones by the dimension `by_` (response: by response). n tokens, of which n_known have a
-- mass; log_ratio, divergence: NULL of quiet ones; p, entropy: sums over n and over n_entropy tokens; key: the bin of `by_`.
CREATE MACRO _counted(analysis_, anchor_, evaluated_at_, divergence_, eps_low_, eps_high_, dual_clip_, delta_low_,
    delta_high_, weight_cap_, first_, second_, step_, plane_, p_low_, p_high_, brush_low_, brush_high_, quick_, by_)
    AS TABLE
SELECT step, group_id, sample_id, reward, advantage AS least_advantage, advantage AS most_advantage, sign, first, second,
    cell, log_ratio, divergence, 1 AS n, (tv_binary IS NOT NULL)::INTEGER AS n_known, tv_binary AS mass, weight, weight * grad_norm AS weight_norm,
    near_ppo::INTEGER AS n_near_ppo, near_dppo::INTEGER AS n_near_dppo, token,
    exp(logp_anchor) AS p, entropy_old AS entropy, (entropy_old IS NOT NULL)::INTEGER AS n_entropy,
    _key(by_, logp_anchor, entropy_old, position, token_id) AS key
FROM _compared(analysis_, anchor_, evaluated_at_, divergence_, eps_low_, eps_high_, dual_clip_, delta_low_, delta_high_,
    weight_cap_, first_, second_, step_, plane_, p_low_, p_high_, brush_low_, brush_high_, quick_ := quick_)
UNION ALL BY NAME
SELECT step, group_id, sample_id, reward, least_advantage, most_advantage, sign, CASE WHEN known THEN true END AS first,
    CASE WHEN known THEN true END AS second,
    CASE WHEN NOT known THEN 'unknown' WHEN sign = 0 THEN 'no_gradient' ELSE 'both_keep' END AS cell, n,
    CASE WHEN known THEN n ELSE 0 END AS n_known, mass, weight,
    CASE WHEN evaluated_at_ = 'end' THEN weight_norm END AS weight_norm, 0 AS n_near_ppo, 0 AS n_near_dppo, token, p, entropy,
    n_entropy, key
FROM _quiet
WHERE quick_ AND analysis = analysis_ AND dimension = by_ AND (step_ IS NULL OR step = step_) AND pair = CASE anchor_
    WHEN 'old' THEN CASE evaluated_at_ WHEN 'end' THEN 'old_new' WHEN 'logged' THEN 'logged_logged' END
    ELSE CASE evaluated_at_ WHEN 'start' THEN 'rollout_old' WHEN 'end' THEN 'rollout_new' ELSE 'rollout_logged' END END;

CREATE MACRO _kl_binary(p, q) AS
    p * ln(p / q) + (1 - p) * ln((1 - p) / (1 - q));

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
