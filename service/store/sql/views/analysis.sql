-- What pages and figures ask of the published tables. $divergence is one of binary_tv, binary_kl, topk_tv, topk_kl,
-- exact_tv, exact_kl; $step NULL means every step. Decisions are made here, under the thresholds that are passed.

-- name: availability
-- For each anchor, evaluation point and estimate: how many tokens have it. Zero: not known here.
SELECT count(log_ratio__rollout_old) AS "rollout/start/binary", count(tv_topk__rollout_old) AS "rollout/start/topk",
    count(log_ratio__rollout_new) AS "rollout/end/binary", count(tv_topk__rollout_new) AS "rollout/end/topk",
    count(log_ratio__rollout_logged) AS "rollout/logged/binary",
    count(logp_old) AS "old/start/binary", count(logp_old) AS "old/start/topk", count(logp_old) AS "old/start/exact",
    count(log_ratio__old_new) AS "old/end/binary", count(tv_topk__old_new) AS "old/end/topk",
    count(tv_exact__old_new) AS "old/end/exact", count(log_ratio__logged_logged) AS "old/logged/binary"
FROM _facts WHERE analysis = $analysis AND counted;

-- name: cells
-- Four cells for each sign of the advantage; cell 'unknown' holds tokens whose decision is not known.
WITH decided AS (FROM _decided($analysis, $anchor, $evaluated_at, $divergence, $eps_low, $eps_high, $dual_clip,
    $delta_low, $delta_high, $weight_cap) WHERE $step IS NULL OR step = $step)
SELECT step, sign, cell, count(*) AS n, sum(tv_binary) AS mass_moved, sum(weight) AS gradient_weight,
    sum(weight * grad_norm) AS gradient_weight_norm,
    count(*) FILTER (near_ppo) AS n_near_ppo, count(*) FILTER (near_dppo) AS n_near_dppo
FROM decided GROUP BY GROUPING SETS ((step, sign, cell), (sign, cell))
ORDER BY step NULLS FIRST, sign, cell;

-- name: plane
-- A density over (anchor probability, y): y = ln ratio, or log10 of the divergence. x = ln(p / (1 - p)).
WITH decided AS (
    SELECT logp_anchor, CASE WHEN $y = 'ratio' THEN log_ratio ELSE log10(greatest(divergence, 1e-9)) END AS y
    FROM _decided($analysis, $anchor, $evaluated_at, $divergence, $eps_low, $eps_high, $dual_clip,
        $delta_low, $delta_high, $weight_cap)
    WHERE ($step IS NULL OR step = $step) AND ($sign IS NULL OR sign = $sign)
        AND log_ratio IS NOT NULL AND (divergence IS NOT NULL OR $y = 'ratio')),
placed AS (
    SELECT greatest(-$x_limit, least($x_limit, _logit(logp_anchor))) AS x, greatest($y_low, least($y_high, y)) AS y
    FROM decided)
SELECT least(floor((x + $x_limit) / (2 * $x_limit) * $x_bins), $x_bins - 1)::INTEGER AS x_bin,
    least(floor((y - $y_low) / ($y_high - $y_low) * $y_bins), $y_bins - 1)::INTEGER AS y_bin, count(*) AS n
FROM placed GROUP BY ALL ORDER BY ALL;

-- name: clipped
-- How many tokens lie beyond the axes of a plane, by side; `plane` puts them into its outermost bins.
WITH placed AS (
    SELECT _logit(logp_anchor) AS x,
        CASE WHEN $y = 'ratio' THEN log_ratio ELSE log10(greatest(divergence, 1e-9)) END AS y
    FROM _decided($analysis, $anchor, $evaluated_at, $divergence, $eps_low, $eps_high, $dual_clip,
        $delta_low, $delta_high, $weight_cap)
    WHERE ($step IS NULL OR step = $step) AND ($sign IS NULL OR sign = $sign)
        AND log_ratio IS NOT NULL AND (divergence IS NOT NULL OR $y = 'ratio'))
SELECT count(*) FILTER (x < -$x_limit) AS "left", count(*) FILTER (x > $x_limit) AS "right",
    count(*) FILTER (y < $y_low) AS below, count(*) FILTER (y > $y_high) AS above
FROM placed;

-- name: ranges
-- How far ratios and divergences spread, so that the planes show all but the furthest tokens.
SELECT coalesce(quantile_cont(abs(log_ratio), 0.999), 0) AS log_ratio,
    coalesce(max(divergence), 0) AS divergence, count(log_ratio) AS n, count(divergence) AS n_divergence
FROM _decided($analysis, $anchor, $evaluated_at, $divergence, $eps_low, $eps_high, $dual_clip,
    $delta_low, $delta_high, $weight_cap)
WHERE ($step IS NULL OR step = $step) AND ($sign IS NULL OR sign = $sign);

-- name: dropped
-- Tokens that at least one method drops, at most $limit of them (the ones that moved most mass).
SELECT step, sample_id, position, token, token_id, sign, cell, _logit(logp_anchor) AS x, exp(logp_anchor) AS p,
    log_ratio, divergence, advantage
FROM _decided($analysis, $anchor, $evaluated_at, $divergence, $eps_low, $eps_high, $dual_clip,
    $delta_low, $delta_high, $weight_cap)
WHERE ($step IS NULL OR step = $step) AND ($sign IS NULL OR sign = $sign)
    AND cell IN ('ppo_only_drops', 'dppo_only_drops', 'both_drop')
ORDER BY tv_binary DESC, step, sample_id, position LIMIT $limit;

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
-- The responses of an analysis with what the two methods would do to their tokens; most disagreement first.
SELECT step, group_id, sample_id, any_value(reward) AS reward, count(*) AS n_tokens,
    CASE WHEN min(advantage) = max(advantage) THEN min(advantage) END AS advantage,
    count(*) FILTER (cell = 'ppo_only_drops') AS n_ppo_only, count(*) FILTER (cell = 'dppo_only_drops') AS n_dppo_only,
    count(*) FILTER (cell = 'both_drop') AS n_both, avg(tv_binary) AS mean_abs_dp
FROM _decided($analysis, $anchor, $evaluated_at, $divergence, $eps_low, $eps_high, $dual_clip,
    $delta_low, $delta_high, $weight_cap)
WHERE $step IS NULL OR step = $step
GROUP BY step, group_id, sample_id
ORDER BY n_ppo_only + n_dppo_only DESC, n_both DESC, step, sample_id LIMIT $limit OFFSET $offset;
