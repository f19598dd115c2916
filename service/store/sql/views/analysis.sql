-- What pages and figures ask of the published tables. $divergence is one of binary_tv, binary_kl, topk_tv, topk_kl,
-- exact_tv, exact_kl; $step NULL means every step. Decisions are made here, under the thresholds that are passed.

-- name: availability
-- For each anchor, evaluation point and estimate: how many tokens have it. Zero: not known here.
SELECT coalesce(sum(COLUMNS(* EXCLUDE (analysis, step))), 0)::BIGINT FROM availability WHERE analysis = $analysis;

-- name: cells
-- Four cells for each sign of the advantage; cell 'unknown' holds tokens whose decision is not known.
SELECT step, sign, cell, sum(n)::BIGINT AS n, sum(mass) AS mass_moved, sum(weight) AS gradient_weight,
    sum(weight_norm) AS gradient_weight_norm, sum(n_near_ppo)::BIGINT AS n_near_ppo, sum(n_near_dppo)::BIGINT AS n_near_dppo
FROM _counted($analysis, $anchor, $evaluated_at, $divergence, $eps_low, $eps_high, $dual_clip, $delta_low,
    $delta_high, $weight_cap, $first, $second, $step, $brush, $p_low, $p_high, $brush_low, $brush_high, $quick, 'response')
GROUP BY GROUPING SETS ((step, sign, cell), (sign, cell))
ORDER BY step NULLS FIRST, sign, cell;

-- name: plane
-- A density over (anchor probability, y): y = ln ratio, or log10 of the divergence. x = ln(p / (1 - p)). Tokens beyond
-- the axes are in the outermost bins: n_left, n_right, n_below, n_above of a bin's n. No threshold plays a part.
WITH drawn AS (
    SELECT _logit(logp_anchor) AS x, CASE WHEN $y = 'ratio' THEN log_ratio ELSE log10(greatest(divergence, 1e-9)) END AS y
    FROM _measured($analysis, $anchor, $evaluated_at, $divergence)
    WHERE ($step IS NULL OR step = $step) AND ($sign IS NULL OR sign(advantage) = $sign)
        AND log_ratio IS NOT NULL AND (divergence IS NOT NULL OR $y = 'ratio')),
placed AS (
    SELECT *, floor((x + $x_limit) / (2 * $x_limit) * $x_bins) AS column_,
        floor((y - $y_low) / ($y_high - $y_low) * $y_bins) AS row_
    FROM drawn)
SELECT greatest(0, least($x_bins - 1, column_))::INTEGER AS x_bin, greatest(0, least($y_bins - 1, row_))::INTEGER AS y_bin,
    count(*) AS n, count(*) FILTER (x < -$x_limit) AS n_left, count(*) FILTER (x > $x_limit) AS n_right,
    count(*) FILTER (y < $y_low) AS n_below, count(*) FILTER (y > $y_high) AS n_above
FROM placed GROUP BY ALL ORDER BY ALL;

-- name: ranges
-- How far ratios and divergences spread, so that the planes show all but the furthest tokens. log_ratio: what 99.9 % of
-- |ln r| lie within, rounded up to the next of 16 steps an octave.
WITH spread AS (
    SELECT ceil(16 * log2(greatest(abs(log_ratio), 1e-6))) AS octave, count(log_ratio) AS n,
        count(divergence) AS n_divergence, max(divergence) AS divergence
    FROM _measured($analysis, $anchor, $evaluated_at, $divergence)
    WHERE ($step IS NULL OR step = $step) AND ($sign IS NULL OR sign(advantage) = $sign)
    GROUP BY octave),
ranked AS (SELECT *, sum(n) OVER (ORDER BY octave) >= 0.999 * sum(n) OVER () AS enough FROM spread)
SELECT coalesce(2 ** (min(octave) FILTER (enough AND n > 0) / 16), 0) AS log_ratio, coalesce(max(divergence), 0) AS divergence,
    coalesce(sum(n), 0)::BIGINT AS n, coalesce(sum(n_divergence), 0)::BIGINT AS n_divergence
FROM ranked;

-- name: dropped
-- Tokens that at least one method drops, at most $limit of them (the ones that moved most mass).
SELECT step, sample_id, position, token, token_id, sign, cell, _logit(logp_anchor) AS x, exp(logp_anchor) AS p,
    log_ratio, divergence, advantage
FROM _compared($analysis, $anchor, $evaluated_at, $divergence, $eps_low, $eps_high, $dual_clip, $delta_low,
    $delta_high, $weight_cap, $first, $second, $step, $brush, $p_low, $p_high, $brush_low, $brush_high,
    quick_ := $quick)
WHERE ($sign IS NULL OR sign = $sign) AND cell NOT IN ('both_keep', 'no_gradient', 'unknown')
ORDER BY tv_binary DESC, step, sample_id, position LIMIT $limit;

-- name: selected
-- The tokens inside the rectangle that is selected on a plane, the ones that moved most mass first.
SELECT step, sample_id, position, token, token_id, sign, cell, exp(logp_anchor) AS p, exp(log_ratio) AS ratio,
    divergence, advantage
FROM _compared($analysis, $anchor, $evaluated_at, $divergence, $eps_low, $eps_high, $dual_clip, $delta_low,
    $delta_high, $weight_cap, $first, $second, $step, $brush, $p_low, $p_high, $brush_low, $brush_high)
WHERE $sign IS NULL OR sign = $sign
ORDER BY tv_binary DESC NULLS LAST, step, sample_id, position LIMIT $limit OFFSET $offset;

-- name: boundaries
-- Where each method starts to drop, as ratio (ln) and as divergence, over the anchor probability. sign 1: A > 0,
-- r > 1; sign -1: A < 0, r < 1. The binary-KL curve is found by bisection; top-K and exact use the binary curve,
-- which they drop at or inside of.
WITH RECURSIVE grid AS (
    SELECT -$x_limit + i * (2 * $x_limit / 240) AS x, 1 / (1 + exp(-(-$x_limit + i * (2 * $x_limit / 240)))) AS p
    FROM range(241) t(i)),
-- the policy probability q at which KL(p, q) = delta, on either side of p
search AS (
    SELECT x, p, 0 AS i, p AS up_low, 1::DOUBLE AS up_high, 0::DOUBLE AS down_low, p AS down_high FROM grid
    UNION ALL
    SELECT x, p, i + 1,
        CASE WHEN _kl_binary(p, (up_low + up_high) / 2) > $delta_high THEN up_low ELSE (up_low + up_high) / 2 END,
        CASE WHEN _kl_binary(p, (up_low + up_high) / 2) > $delta_high THEN (up_low + up_high) / 2 ELSE up_high END,
        CASE WHEN _kl_binary(p, (down_low + down_high) / 2) > $delta_low THEN (down_low + down_high) / 2 ELSE down_low END,
        CASE WHEN _kl_binary(p, (down_low + down_high) / 2) > $delta_low THEN down_high ELSE (down_low + down_high) / 2 END
    FROM search WHERE i < 120),
curves AS (
    SELECT x, p, 'ppo' AS method, 1 AS sign, p * (1 + $eps_high) AS q FROM grid
    UNION ALL SELECT x, p, 'ppo', -1, p * (1 - $eps_low) FROM grid
    UNION ALL SELECT x, p, 'dppo', 1, p + $delta_high FROM grid WHERE ends_with($divergence, 'tv')
    UNION ALL SELECT x, p, 'dppo', -1, p - $delta_low FROM grid WHERE ends_with($divergence, 'tv')
    UNION ALL SELECT x, p, 'dppo', 1, up_high FROM search WHERE i = 120 AND ends_with($divergence, 'kl')
    UNION ALL SELECT x, p, 'dppo', -1, down_low FROM search WHERE i = 120 AND ends_with($divergence, 'kl'))
SELECT method, sign, x, p, CASE WHEN q > 0 AND q < 1 THEN ln(q / p) END AS log_ratio,
    CASE WHEN q > 0 AND q < 1 THEN
        CASE WHEN ends_with($divergence, 'tv') THEN abs(q - p) ELSE _kl_binary(p, q) END END AS divergence
FROM curves ORDER BY method, sign, x;

-- name: noise
-- The noise floor of what a view shows: the worst step's 99 % quantiles. NULL where nothing was scored twice.
SELECT coalesce(sum(n), 0)::BIGINT AS n, max(q99_abs_logp) AS log_ratio, max(q99_tv) AS tv, max(q99_kl) AS kl
FROM noise_floor WHERE analysis = $analysis AND ($step IS NULL OR step = $step);

-- name: rollouts
-- The responses of an analysis with what PPO and DPPO would do to their tokens; most disagreement first.
SELECT step, group_id, sample_id, any_value(reward) AS reward, sum(n)::BIGINT AS n_tokens,
    CASE WHEN min(least_advantage) = max(most_advantage) THEN min(least_advantage) END AS advantage,
    _total(n, cell = 'ppo_only_drops') AS n_ppo_only, _total(n, cell = 'dppo_only_drops') AS n_dppo_only,
    _total(n, cell = 'both_drop') AS n_both, sum(mass) / nullif(sum(n_known), 0) AS mean_abs_dp
FROM _counted($analysis, $anchor, $evaluated_at, $divergence, $eps_low, $eps_high, $dual_clip, $delta_low,
    $delta_high, $weight_cap, 'ppo', 'dppo', $step, 'ratio', NULL, NULL, NULL, NULL, $quick, 'response')
GROUP BY step, group_id, sample_id
ORDER BY n_ppo_only + n_dppo_only DESC, n_both DESC, step, sample_id LIMIT $limit OFFSET $offset;

-- name: responses
-- The responses of a view with what the two methods would do to their tokens; most disagreement first.
SELECT step, group_id, sample_id, any_value(reward) AS reward, sum(n)::BIGINT AS n_tokens,
    CASE WHEN min(least_advantage) = max(most_advantage) THEN min(least_advantage) END AS advantage,
    _total(n, cell = $first || '_only_drops') AS n_only_first, _total(n, cell = $second || '_only_drops') AS n_only_second,
    _total(n, cell = 'both_drop') AS n_both,
    sum(mass) / nullif(sum(n_known), 0) AS mean_abs_dp
FROM _counted($analysis, $anchor, $evaluated_at, $divergence, $eps_low, $eps_high, $dual_clip, $delta_low,
    $delta_high, $weight_cap, $first, $second, $step, $brush, $p_low, $p_high, $brush_low, $brush_high, $quick, 'response')
GROUP BY step, group_id, sample_id
ORDER BY n_only_first + n_only_second DESC, n_both DESC, step, sample_id LIMIT $limit OFFSET $offset;

-- name: rate_match
-- For each sign of A the δ at which DPPO drops as many tokens as PPO does: the (n_ppo + 1)-th largest divergence of the
-- tokens that move away from r = 1, or 0 where there are no more of them. Masks are strict: the n_tied tokens at δ are
-- kept. A logarithmic histogram finds the bin that holds it, so that only one bin is sorted.
WITH known AS (
    SELECT sign, first AS ppo, divergence, n,
        CASE WHEN sign * log_ratio > 0 THEN floor(64 * ln(greatest(divergence, 1e-30))) END AS bin
    FROM _counted($analysis, $anchor, $evaluated_at, $divergence, $eps_low, $eps_high, $dual_clip, $delta_low,
        $delta_high, $weight_cap, 'ppo', 'dppo', $step, 'ratio', NULL, NULL, NULL, NULL, $quick, 'response')
    WHERE sign <> 0 AND cell <> 'unknown'),
bins AS (
    SELECT *, sum(n) OVER (PARTITION BY sign, bin IS NULL ORDER BY bin DESC) - n AS above
    FROM (SELECT sign, bin, sum(n) AS n, _total(n, NOT ppo) AS n_ppo FROM known GROUP BY sign, bin)),
totals AS (SELECT sign, sum(n)::BIGINT AS n, sum(n_ppo)::BIGINT AS n_ppo FROM bins GROUP BY sign),
held AS (
    SELECT sign, bin, above, t.n_ppo - above AS larger FROM bins b JOIN totals t USING (sign)
    WHERE bin IS NOT NULL AND above <= t.n_ppo AND t.n_ppo < above + b.n),
sorted AS (
    SELECT sign, divergence, larger, above, row_number() OVER (PARTITION BY sign ORDER BY divergence DESC) AS place
    FROM known JOIN held USING (sign, bin)),
found AS (
    SELECT sign, delta, (above + count(*) FILTER (divergence > delta))::BIGINT AS n_dppo,
        count(*) FILTER (divergence = delta) AS n_tied
    FROM sorted JOIN (SELECT sign, divergence AS delta FROM sorted WHERE place = larger + 1) USING (sign)
    GROUP BY sign, delta, above)
SELECT sign, n, n_ppo, coalesce(delta, 0) AS delta,
    coalesce(n_dppo, (SELECT count(*) FROM known k WHERE k.sign = t.sign AND bin IS NOT NULL AND divergence > 0)) AS n_dppo,
    coalesce(n_tied, (SELECT count(*) FROM known k WHERE k.sign = t.sign AND bin IS NOT NULL AND divergence = 0)) AS n_tied
FROM totals t LEFT JOIN found USING (sign)
ORDER BY sign;

-- name: bins
-- Where in a dimension the two methods disagree: tokens with A <> 0 by bin and sign of A. $by: probability (of the
-- anchor), position (in the response, by powers of two), decile (tenths of the tokens by position), entropy (of OLD,
-- nats) or token (the 20 of each sign in dispute most often). low, high: the bin's edges; of positions, the first and
-- the last.
WITH counted AS (
    SELECT key, sign, any_value(token) FILTER ($by = 'token') AS token, sum(n) AS n,
        _total(n, NOT first) AS n_first, _total(n, NOT second) AS n_second, _total(n, NOT first AND second) AS n_only_first,
        _total(n, first AND NOT second) AS n_only_second, _total(n, NOT first AND NOT second) AS n_both, sum(mass) AS mass_moved,
        sum(n_near_ppo) AS n_near_ppo, sum(n_near_dppo) AS n_near_dppo
    FROM _counted($analysis, $anchor, $evaluated_at, $divergence, $eps_low, $eps_high, $dual_clip, $delta_low,
        $delta_high, $weight_cap, $first, $second, $step, $brush, $p_low, $p_high, $brush_low, $brush_high,
        $quick AND $by <> 'decile', $by)
    WHERE sign <> 0 AND cell <> 'unknown' GROUP BY key, sign),
placed AS (
    SELECT *, CASE WHEN $by = 'decile' THEN 10 * coalesce(sum(n) OVER (
            ORDER BY key RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) // sum(n) OVER () ELSE key
        END::BIGINT AS place FROM counted)
SELECT sign, place,
    CASE $by WHEN 'probability' THEN _probability_edges()[place + 1] WHEN 'entropy' THEN _entropy_edges()[place + 1]
        WHEN 'position' THEN 2 ** place - 1 WHEN 'decile' THEN min(min(key)) OVER (PARTITION BY place) END::DOUBLE AS low,
    CASE $by WHEN 'probability' THEN _probability_edges()[place + 2] WHEN 'entropy' THEN _entropy_edges()[place + 2]
        WHEN 'position' THEN 2 ** (place + 1) - 2 WHEN 'decile' THEN max(max(key)) OVER (PARTITION BY place)
        END::DOUBLE AS high,
    CASE WHEN $by = 'token' THEN place END AS token_id, any_value(token) AS token, sum(n)::BIGINT AS n,
    sum(n_first)::BIGINT AS n_first, sum(n_second)::BIGINT AS n_second,
    sum(n_only_first)::BIGINT AS n_only_first, sum(n_only_second)::BIGINT AS n_only_second,
    sum(n_both)::BIGINT AS n_both, sum(mass_moved) AS mass_moved,
    sum(n_near_ppo)::BIGINT AS n_near_ppo, sum(n_near_dppo)::BIGINT AS n_near_dppo
FROM placed GROUP BY sign, place
QUALIFY $by <> 'token' OR row_number() OVER (
    PARTITION BY sign ORDER BY sum(n_only_first + n_only_second) DESC, sum(n_both) DESC, place) <= 20
ORDER BY sign DESC, CASE WHEN $by = 'token' THEN -sum(n_only_first + n_only_second) END,
    CASE WHEN $by = 'token' THEN -sum(n_both) END, place NULLS LAST;
