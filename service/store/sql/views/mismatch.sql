-- What the mismatch page asks: mu -> OLD (the engine, before any update) and OLD -> NEW (the update), apart and
-- together. At $evaluated_at 'logged' OLD and NEW are the trainer's own log-probs. C1, C1b, C4, C6: arXiv:2602.04879.

-- name: mismatch_parts
-- log r = log rho + log r', and what each part does to the token's probability, by bin of mu(a) (a NULL bin holds all):
-- means and quantiles of |log| and |dp|. share: this part's sum of |dp| over those of mismatch and update; known where
-- both are. Tokens without mu(a) have a row of their own only in the update's total.
WITH parts AS (
    SELECT _bin_of(exp(logp_rollout)) AS bin, * FROM _parts($analysis, $evaluated_at)
    WHERE $step IS NULL OR step = $step),
spread AS (
    SELECT bin, sum(dp_mismatch) FILTER (dp_update IS NOT NULL) AS sum_mismatch,
        sum(dp_update) FILTER (dp_mismatch IS NOT NULL) AS sum_update,
        unnest([{'part': 'mismatch', 'place': 1, 's': _spread(log_mismatch, dp_mismatch)},
            {'part': 'update', 'place': 2, 's': _spread(log_update, dp_update)},
            {'part': 'together', 'place': 3, 's': _spread(log_together, dp_together)}], recursive := true)
    FROM parts GROUP BY GROUPING SETS ((bin), ()) HAVING grouping(bin) = 1 OR bin IS NOT NULL)
SELECT _bin_low(bin) AS p_low, _bin_high(bin) AS p_high, part, n, mean_log, mean_abs_log, q_log[1] AS q50_abs_log,
    q_log[2] AS q90_abs_log, q_log[3] AS q99_abs_log, max_abs_log, mean_abs_dp, q_dp[1] AS q50_abs_dp,
    q_dp[2] AS q90_abs_dp, q_dp[3] AS q99_abs_dp, max_abs_dp, k3,
    CASE part WHEN 'mismatch' THEN sum_mismatch WHEN 'update' THEN sum_update END
        / nullif(sum_mismatch + sum_update, 0) AS share
FROM spread ORDER BY p_low NULLS FIRST, place;

-- name: mismatch_steps
-- The same by step.
WITH spread AS (
    SELECT step, sum(dp_mismatch) FILTER (dp_update IS NOT NULL) AS sum_mismatch,
        sum(dp_update) FILTER (dp_mismatch IS NOT NULL) AS sum_update,
        unnest([{'part': 'mismatch', 'place': 1, 's': _spread(log_mismatch, dp_mismatch)},
            {'part': 'update', 'place': 2, 's': _spread(log_update, dp_update)},
            {'part': 'together', 'place': 3, 's': _spread(log_together, dp_together)}], recursive := true)
    FROM _parts($analysis, $evaluated_at) WHERE $step IS NULL OR step = $step GROUP BY step)
SELECT step, part, n, mean_log, mean_abs_log, q_log[1] AS q50_abs_log, q_log[2] AS q90_abs_log, q_log[3] AS q99_abs_log,
    max_abs_log, mean_abs_dp, q_dp[1] AS q50_abs_dp, q_dp[2] AS q90_abs_dp, q_dp[3] AS q99_abs_dp, max_abs_dp, k3,
    CASE part WHEN 'mismatch' THEN sum_mismatch WHEN 'update' THEN sum_update END
        / nullif(sum_mismatch + sum_update, 0) AS share
FROM spread ORDER BY step, place;

-- name: mismatch_ranges
-- How far both parts spread, so that the planes show all but the furthest tokens, and how many have which TV.
SELECT count(log_mismatch) AS n_mismatch, count(log_update) AS n_update, count(tv_topk_mismatch) AS n_topk,
    count(tv_exact_update) AS n_exact,
    quantile_cont(abs(log_mismatch), 0.999) AS mismatch, quantile_cont(abs(log_update), 0.999) AS "update"
FROM _parts($analysis, $evaluated_at)
WHERE ($step IS NULL OR step = $step) AND ($sign IS NULL OR sign = $sign);

-- name: mismatch_plane
-- C1: a density over (the first policy's probability, $quantity): log_mismatch or log_update, or log10 of
-- tv_mismatch_topk, tv_mismatch_binary, tv_update_exact, tv_update_binary. x = ln(p / (1 - p)). n_beyond of n lie
-- beyond the axes and are in the outermost bins.
WITH chosen AS (
    SELECT CASE WHEN contains($quantity, 'mismatch') THEN logp_rollout ELSE logp_before END AS logp,
        CASE $quantity WHEN 'log_mismatch' THEN log_mismatch WHEN 'log_update' THEN log_update
            WHEN 'tv_mismatch_topk' THEN tv_topk_mismatch WHEN 'tv_mismatch_binary' THEN dp_mismatch
            WHEN 'tv_update_exact' THEN tv_exact_update WHEN 'tv_update_binary' THEN dp_update END AS value
    FROM _parts($analysis, $evaluated_at)
    WHERE ($step IS NULL OR step = $step) AND ($sign IS NULL OR sign = $sign)),
placed AS (
    SELECT _logit(logp) AS x,
        CASE WHEN starts_with($quantity, 'log') THEN value ELSE log10(greatest(value, 1e-30)) END AS y
    FROM chosen WHERE value IS NOT NULL)
SELECT greatest(0, least($x_bins - 1, floor((x + $x_limit) / (2 * $x_limit) * $x_bins)))::INTEGER AS x_bin,
    greatest(0, least($y_bins - 1, floor((y - $y_low) / ($y_high - $y_low) * $y_bins)))::INTEGER AS y_bin,
    count(*) AS n, count(*) FILTER (abs(x) > $x_limit OR y < $y_low OR y > $y_high) AS n_beyond
FROM placed GROUP BY ALL ORDER BY ALL;

-- name: bands
-- C1b: where both sides round their logits to bfloat16, log rho of rare tokens (mu(a) < .1) gathers at multiples of the
-- spacing between neighbouring logits: .0625 for logits of 8 to 16, .125 of 16 to 32, .25 of 32 to 64. Of the tokens
-- around the first two multiples on either side, n_near lie in the quarter of the period at a multiple. n_between is
-- what the same width would hold if it were as full as halfway to the next multiple, on the fuller side: a density
-- without bands that falls outward, ends, or bends by less than the spacing is not fuller at the multiples. z = (near -
-- between) / sqrt(near + between) is that of a fair coin. Bands are found at z > 4 with at least a quarter more near
-- than between, and not looked for in fewer than 1000 rare tokens.
WITH pairs AS (
    SELECT unnest([{'against': 'old', 'x': CASE WHEN logp_before IS NOT NULL THEN abs(log_mismatch) END},
        {'against': 'logged', 'x': abs(log_mismatch_logged)}], recursive := true)
    FROM _parts($analysis, 'end') WHERE logp_rollout < ln(0.1) AND ($step IS NULL OR step = $step)),
folded AS (
    SELECT against, spacing, x BETWEEN spacing / 2 AND 2.5 * spacing AS around,
        x / spacing - round(x / spacing) AS away
    FROM pairs, (SELECT unnest([0.0625, 0.125, 0.25]::DOUBLE[]) AS spacing) WHERE x IS NOT NULL),
counted AS (
    SELECT against, spacing, count(*) AS n, count(*) FILTER (around AND abs(away) < 0.125) AS n_near,
        2 * greatest(count(*) FILTER (around AND away < -0.375), count(*) FILTER (around AND away > 0.375)) AS n_between
    FROM folded GROUP BY ALL),
tested AS (SELECT *, (n_near - n_between) / nullif(sqrt(n_near + n_between), 0) AS z FROM counted)
SELECT *, CASE WHEN n < 1000 THEN 'too few tokens' WHEN z > 4 AND n_near > 1.25 * n_between THEN 'found'
    ELSE 'not found' END AS bands
FROM tested ORDER BY against DESC, spacing;

-- name: anchors
-- C4: what the recompute anchor changes: each method's mask measured from mu against that measured from OLD, at the
-- same thresholds and the same policy. Cells by method and sign of A (A <> 0); share_of_drops: of the tokens that the
-- mask from mu drops, those of this cell. n_near lie within the noise floor of the threshold under either anchor.
WITH pairs AS (
    SELECT advantage, sign(advantage)::TINYINT AS sign,
        _when($evaluated_at, log_ratio__rollout_old, log_ratio__rollout_new, log_ratio__rollout_logged) AS log_rollout,
        _when($evaluated_at, zero, log_ratio__old_new, log_ratio__logged_logged) AS log_old,
        _when($evaluated_at, tv_binary__rollout_old, tv_binary__rollout_new, tv_binary__rollout_logged) AS dp_rollout,
        _when($evaluated_at, zero, tv_binary__old_new, tv_binary__logged_logged) AS dp_old,
        CASE $divergence
            WHEN 'binary_tv'
                THEN _when($evaluated_at, tv_binary__rollout_old, tv_binary__rollout_new, tv_binary__rollout_logged)
            WHEN 'binary_kl'
                THEN _when($evaluated_at, kl_binary__rollout_old, kl_binary__rollout_new, kl_binary__rollout_logged)
            WHEN 'topk_tv' THEN _when($evaluated_at, tv_topk__rollout_old, tv_topk__rollout_new, NULL)
            WHEN 'topk_kl' THEN _when($evaluated_at, kl_topk__rollout_old, kl_topk__rollout_new, NULL) END AS d_rollout,
        CASE $divergence
            WHEN 'binary_tv' THEN _when($evaluated_at, zero, tv_binary__old_new, tv_binary__logged_logged)
            WHEN 'binary_kl' THEN _when($evaluated_at, zero, kl_binary__old_new, kl_binary__logged_logged)
            WHEN 'topk_tv' THEN _when($evaluated_at, zero, tv_topk__old_new, NULL)
            WHEN 'topk_kl' THEN _when($evaluated_at, zero, kl_topk__old_new, NULL) END AS d_old,
        _floor($analysis) AS floor
    FROM _facts WHERE analysis = $analysis AND counted AND advantage <> 0 AND ($step IS NULL OR step = $step)),
decided AS (
    SELECT sign, dp_rollout, dp_old,
        keep_ppo(log_rollout, advantage, $eps_low, $eps_high, $dual_clip) AS ppo_rollout,
        keep_ppo(log_old, advantage, $eps_low, $eps_high, $dual_clip) AS ppo_old,
        keep_dppo(d_rollout, log_rollout, advantage, $delta_low, $delta_high) AS dppo_rollout,
        keep_dppo(d_old, log_old, advantage, $delta_low, $delta_high) AS dppo_old,
        coalesce(least(abs(exp(log_rollout) - 1 - sign * CASE sign WHEN 1 THEN $eps_high ELSE $eps_low END),
            abs(exp(log_old) - 1 - sign * CASE sign WHEN 1 THEN $eps_high ELSE $eps_low END)) < floor.log_ratio, false)
            AS near_ppo,
        _near(d_rollout, log_rollout, advantage, $delta_low, $delta_high, floor.tv)
            OR _near(d_old, log_old, advantage, $delta_low, $delta_high, floor.tv) AS near_dppo
    FROM pairs),
grouped AS (
    SELECT sign, ppo_rollout, ppo_old, dppo_rollout, dppo_old, count(*) AS n, sum(dp_rollout) AS dp_rollout,
        sum(dp_old) AS dp_old, count(*) FILTER (near_ppo) AS near_ppo, count(*) FILTER (near_dppo) AS near_dppo
    FROM decided GROUP BY ALL),
methods AS (
    SELECT sign, n, dp_rollout, dp_old,
        unnest([{'method': 'ppo', 'rollout': ppo_rollout, 'old': ppo_old, 'near': near_ppo},
            {'method': 'dppo', 'rollout': dppo_rollout, 'old': dppo_old, 'near': near_dppo}], recursive := true)
    FROM grouped),
cells AS (
    SELECT method, sign, CASE WHEN rollout IS NULL OR old IS NULL THEN 'unknown' WHEN rollout AND old THEN 'both_keep'
            WHEN old THEN 'only_rollout_drops' WHEN rollout THEN 'only_old_drops' ELSE 'both_drop' END AS cell,
        sum(n)::BIGINT AS n, sum(dp_rollout) / sum(n) AS mean_abs_dp_rollout, sum(dp_old) / sum(n) AS mean_abs_dp_old,
        sum(near)::BIGINT AS n_near
    FROM methods GROUP BY ALL)
SELECT method, sign, cell, n, mean_abs_dp_rollout, mean_abs_dp_old, n_near,
    CASE WHEN cell IN ('only_rollout_drops', 'both_drop') THEN
        n / sum(n) FILTER (cell IN ('only_rollout_drops', 'both_drop')) OVER (PARTITION BY method, sign) END
        AS share_of_drops
FROM cells ORDER BY method DESC, sign DESC,
    list_position(['both_keep', 'only_rollout_drops', 'only_old_drops', 'both_drop', 'unknown'], cell);

-- name: truncation
-- C6: who loses weight when r = pi(a)/mu(a) is truncated at C (min(r, C)): by range of mu(a), the share of all tokens
-- and of the truncated ones (r > C), and the weight lost, sum of (r - C)|A|, of the untruncated weight, sum of r|A|.
-- Ranges: the bins (is_bin), and those from 0 for P(mu < x | r > C) against P(mu < x). Tokens with A <> 0.
WITH tokens AS (
    SELECT _bin_of(exp(logp_anchor)) AS bin, exp(log_ratio) AS r, abs(advantage) AS a
    FROM _paired($analysis, 'rollout', $evaluated_at)
    WHERE counted AND advantage <> 0 AND log_ratio IS NOT NULL AND ($step IS NULL OR step = $step)),
binned AS (
    SELECT bin, count(*) AS n, sum(r * a) AS weight,
        unnest([_over(coalesce($weight_cap, 2)::DOUBLE, r, a), _over(3::DOUBLE, r, a), _over(5::DOUBLE, r, a)],
            recursive := true)
    FROM tokens GROUP BY bin),
ranges AS (
    FROM (SELECT unnest(range(1, 8)) AS first, unnest(range(1, 8)) AS last)
    UNION ALL FROM (SELECT 1, unnest([2, 3, 4]))),
summed AS (
    SELECT c.cap, first, last, coalesce(sum(n), 0)::BIGINT AS n, coalesce(sum(n_truncated), 0)::BIGINT AS n_truncated,
        coalesce(sum(weight ORDER BY bin), 0) AS weight, coalesce(sum(lost ORDER BY bin), 0) AS lost
    FROM ranges JOIN (SELECT DISTINCT cap FROM binned) c ON true
    LEFT JOIN (SELECT DISTINCT * FROM binned) b ON b.cap = c.cap AND bin BETWEEN first AND last GROUP BY ALL)
SELECT cap, _bin_low(first) AS p_low, _bin_high(last) AS p_high, first = last AS is_bin, n, n_truncated, weight, lost,
    n / sum(n) FILTER (first = last) OVER of_cap AS share,
    n_truncated / nullif(sum(n_truncated) FILTER (first = last) OVER of_cap, 0) AS share_of_truncated,
    lost / nullif(sum(lost) FILTER (first = last) OVER of_cap, 0) AS share_of_lost
FROM summed WINDOW of_cap AS (PARTITION BY cap) ORDER BY cap, p_low, p_high;

-- name: mismatch_responses
-- Where r <> 1 before any update: the responses, largest mean |log rho| first; the token where it is largest; and how
-- many tokens each method would drop at the step's start, measured from mu, because of the mismatch alone.
WITH pairs AS (
    SELECT *, keep_ppo(log_mismatch, advantage, $eps_low, $eps_high, $dual_clip) AS ppo,
        keep_dppo(CASE $divergence WHEN 'binary_tv' THEN dp_mismatch WHEN 'binary_kl' THEN kl_binary_mismatch
                WHEN 'topk_tv' THEN tv_topk_mismatch WHEN 'topk_kl' THEN kl_topk_mismatch END,
            log_mismatch, advantage, $delta_low, $delta_high) AS dppo
    FROM _parts($analysis, $evaluated_at) WHERE log_mismatch IS NOT NULL AND ($step IS NULL OR step = $step)),
worst AS (
    SELECT step, group_id, sample_id, any_value(reward) AS reward,
        CASE WHEN min(advantage) = max(advantage) THEN min(advantage) END AS advantage, count(*) AS n_tokens,
        avg(log_mismatch) AS mean_log, avg(abs(log_mismatch)) AS mean_abs_log, max(abs(log_mismatch)) AS max_abs_log,
        avg(dp_mismatch) AS mean_abs_dp,
        CASE WHEN count(ppo) > 0 THEN count(*) FILTER (NOT ppo) END AS n_ppo_drops,
        CASE WHEN count(dppo) > 0 THEN count(*) FILTER (NOT dppo) END AS n_dppo_drops,
        arg_max(position, abs(log_mismatch)) AS worst_position
    FROM pairs GROUP BY step, group_id, sample_id
    ORDER BY mean_abs_log DESC, step, sample_id LIMIT $limit OFFSET $offset)
SELECT w.*, t.token_id AS worst_token_id, t.token AS worst_token
FROM worst w JOIN _facts t ON t.analysis = $analysis AND t.step = w.step AND t.sample_id = w.sample_id
    AND t.position = w.worst_position
ORDER BY mean_abs_log DESC, w.step, w.sample_id;

-- name: staleness
-- Mismatch by how many versions the policy that sampled lies behind the step (NULL: the log does not say, or a response
-- has several): in asynchronous runs log rho is mismatch and staleness together.
WITH responses AS (
    SELECT step, sample_id, count(log_mismatch) AS n, sum(abs(log_mismatch)) AS abs_log, sum(dp_mismatch) AS dp
    FROM _parts($analysis, $evaluated_at) WHERE $step IS NULL OR step = $step GROUP BY step, sample_id)
SELECT step - r.policy_version AS lag, count(*) AS n_responses, sum(n)::BIGINT AS n_tokens,
    sum(abs_log) / nullif(sum(n), 0) AS mean_abs_log, sum(dp) / nullif(sum(n), 0) AS mean_abs_dp
FROM responses JOIN (SELECT step, sample_id, policy_version FROM rollouts WHERE run = $run) r USING (step, sample_id)
GROUP BY lag ORDER BY lag NULLS LAST;
