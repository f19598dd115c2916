-- What the page that sets two analyses side by side asks: a is $analysis under its view, b is $b under the parameters
-- that begin with b_.

-- name: analysis
-- One analysis as it was asked for.
SELECT * FROM analyses WHERE analysis = $analysis;

-- name: compare_definitions
-- Everything that either side's numbers depend on; one row a side.
WITH views AS (
    SELECT 'a' AS side, $analysis AS analysis, $step::UINTEGER AS step, $anchor AS anchor,
        $evaluated_at AS evaluated_at, $divergence AS divergence, $eps_low AS eps_low, $eps_high AS eps_high,
        $dual_clip::DOUBLE AS dual_clip, $delta_low AS delta_low, $delta_high AS delta_high,
        $weight_cap::DOUBLE AS weight_cap
    UNION ALL SELECT 'b', $b, $b_step, $b_anchor, $b_evaluated_at, $b_divergence, $b_eps_low, $b_eps_high, $b_dual_clip,
        $b_delta_low, $b_delta_high, $b_weight_cap)
SELECT v.*, a.run, a.source, a.dtype, a.top_k, a.topk_mode, a.stale, r.framework, r.temperature, r.top_p,
    r.top_k AS sampling_top_k, r.logprobs_mode, r.tokenizer, s.* EXCLUDE (side)
FROM views v JOIN analyses a USING (analysis) JOIN runs r USING (run) JOIN (
    SELECT side, count(s.step) AS n_steps, min(s.step) AS first_step, max(s.step) AS last_step,
        sum(s.n_tokens)::UBIGINT AS n_tokens, min(s.span) AS least_span, max(s.span) AS most_span,
        CASE WHEN count(s.step) = 1 THEN min(s.old_checkpoint) END AS old_checkpoint,
        CASE WHEN count(s.step) = 1 THEN min(s.new_checkpoint) END AS new_checkpoint,
        string_agg(DISTINCT s.device, ', ') AS device, max(f.q99_tv) AS noise_tv
    FROM views v LEFT JOIN analysis_scorings s ON s.analysis = v.analysis AND (v.step IS NULL OR s.step = v.step)
    LEFT JOIN noise_floor f ON f.analysis = s.analysis AND f.step = s.step
    GROUP BY side) s USING (side)
ORDER BY side;

-- name: compare_cells
-- The four cells by sign of A: each side's tokens, their share of that side's known tokens of the sign, and b's share
-- minus a's. n_near: tokens within the noise floor of a threshold. A share of nothing is NULL.
WITH counts AS (
    SELECT 'a' AS side, sign, cell, sum(n) AS n, count(*) FILTER (n_near_ppo + n_near_dppo > 0) AS n_near
    FROM _counted($analysis, $anchor, $evaluated_at, $divergence, $eps_low, $eps_high, $dual_clip, $delta_low,
        $delta_high, $weight_cap, 'ppo', 'dppo', $step, 'ratio', NULL, NULL, NULL, NULL, $quick, 'response')
    GROUP BY sign, cell
    UNION ALL SELECT 'b', sign, cell, sum(n), count(*) FILTER (n_near_ppo + n_near_dppo > 0)
    FROM _counted($b, $b_anchor, $b_evaluated_at, $b_divergence, $b_eps_low, $b_eps_high, $b_dual_clip, $b_delta_low,
        $b_delta_high, $b_weight_cap, 'ppo', 'dppo', $b_step, 'ratio', NULL, NULL, NULL, NULL, $b_quick, 'response')
    GROUP BY sign, cell),
grid AS (
    SELECT * FROM (VALUES (1::TINYINT), (-1)) s(sign)
    CROSS JOIN (VALUES ('both_keep', 0), ('ppo_only_drops', 1), ('dppo_only_drops', 2), ('both_drop', 3)) c(cell, place)),
filled AS (
    SELECT g.sign, cell, place,
        _total(n, side = 'a') AS n_a, _total(n, side = 'b') AS n_b, _total(n_near, side = 'a') AS n_near_a,
        _total(n_near, side = 'b') AS n_near_b
    FROM grid g LEFT JOIN counts USING (sign, cell) GROUP BY ALL)
SELECT sign, cell, n_a, n_b, n_near_a, n_near_b,
    n_a / nullif(sum(n_a) OVER (PARTITION BY sign), 0) AS share_a,
    n_b / nullif(sum(n_b) OVER (PARTITION BY sign), 0) AS share_b, share_b - share_a AS difference
FROM filled ORDER BY sign DESC, place;

-- name: compare_timeline
-- The steps of either side's run, as in the table timeline.
SELECT 'a' AS side, * FROM _timeline($run, $analysis)
UNION ALL SELECT 'b', * FROM _timeline($b_run, $b)
ORDER BY side, step;

-- name: compare_plane
-- Either side's density over (anchor probability, y), in the same bins: y = ln ratio, or log10 of the divergence.
WITH decided AS (
    SELECT 'a' AS side, logp_anchor, CASE WHEN $y = 'ratio' THEN log_ratio ELSE log10(greatest(divergence, 1e-9)) END AS y
    FROM _decided($analysis, $anchor, $evaluated_at, $divergence, $eps_low, $eps_high, $dual_clip, $delta_low,
        $delta_high, $weight_cap)
    WHERE ($step IS NULL OR step = $step) AND log_ratio IS NOT NULL AND (divergence IS NOT NULL OR $y = 'ratio')
    UNION ALL
    SELECT 'b', logp_anchor, CASE WHEN $y = 'ratio' THEN log_ratio ELSE log10(greatest(divergence, 1e-9)) END
    FROM _decided($b, $b_anchor, $b_evaluated_at, $b_divergence, $b_eps_low, $b_eps_high, $b_dual_clip, $b_delta_low,
        $b_delta_high, $b_weight_cap)
    WHERE ($b_step IS NULL OR step = $b_step) AND log_ratio IS NOT NULL AND (divergence IS NOT NULL OR $y = 'ratio')),
placed AS (
    SELECT side, greatest(-$x_limit, least($x_limit, _logit(logp_anchor))) AS x, greatest($y_low, least($y_high, y)) AS y
    FROM decided)
SELECT side, least(floor((x + $x_limit) / (2 * $x_limit) * $x_bins), $x_bins - 1)::INTEGER AS x_bin,
    least(floor((y - $y_low) / ($y_high - $y_low) * $y_bins), $y_bins - 1)::INTEGER AS y_bin, count(*) AS n
FROM placed GROUP BY ALL ORDER BY ALL;

-- name: compare_quantiles
-- Quantiles of |π − anchor| by bin of the anchor's probability, [low, high), for either side.
WITH moved AS (
    SELECT 'a' AS side, logp_anchor, tv_binary FROM _paired($analysis, $anchor, $evaluated_at)
    WHERE ($step IS NULL OR step = $step) AND tv_binary IS NOT NULL
    UNION ALL SELECT 'b', logp_anchor, tv_binary FROM _paired($b, $b_anchor, $b_evaluated_at)
    WHERE ($b_step IS NULL OR step = $b_step) AND tv_binary IS NOT NULL),
binned AS (
    SELECT side, tv_binary, (logp_anchor >= ln(1e-4))::INT + (logp_anchor >= ln(1e-3))::INT
        + (logp_anchor >= ln(0.01))::INT + (logp_anchor >= ln(0.1))::INT + (logp_anchor >= ln(0.5))::INT
        + (logp_anchor >= ln(0.9))::INT + (logp_anchor >= ln(0.99))::INT AS bin
    FROM moved)
SELECT side, bin, [0, 1e-4, 1e-3, 0.01, 0.1, 0.5, 0.9, 0.99, 1][bin + 1]::DOUBLE AS low,
    [0, 1e-4, 1e-3, 0.01, 0.1, 0.5, 0.9, 0.99, 1][bin + 2]::DOUBLE AS high, count(*) AS n,
    quantile_cont(tv_binary, 0.5) AS q50, quantile_cont(tv_binary, 0.9) AS q90, quantile_cont(tv_binary, 0.99) AS q99,
    max(tv_binary) AS max
FROM binned GROUP BY side, bin ORDER BY side, bin;
