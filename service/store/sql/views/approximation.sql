-- What the approximation page asks: binary and top-K against exact, of OLD -> NEW, the pair whose exact divergence is
-- known. $measure is tv or kl, $estimate binary or topk; $delta_* are thresholds of $measure, $delta_tv_* of TV.

-- name: approximation_plane
-- A density over (log10 exact, log10 estimate), both axes from $low to $high; n_beyond of n lie below or above them and
-- are in the outermost bins.
WITH placed AS (
    SELECT log10(greatest(d_exact, 1e-30)) AS x,
        log10(greatest(CASE $estimate WHEN 'binary' THEN d_binary ELSE d_topk END, 1e-30)) AS y
    FROM _estimates($analysis, $measure)
    WHERE ($step IS NULL OR step = $step) AND ($sign IS NULL OR sign = $sign)
        AND CASE $estimate WHEN 'binary' THEN d_binary ELSE d_topk END IS NOT NULL)
SELECT greatest(0, least($bins - 1, floor((x - $low) / ($high - $low) * $bins)))::INTEGER AS x_bin,
    greatest(0, least($bins - 1, floor((y - $low) / ($high - $low) * $bins)))::INTEGER AS y_bin,
    count(*) AS n, count(*) FILTER (x < $low OR x > $high OR y < $low OR y > $high) AS n_beyond
FROM placed GROUP BY ALL ORDER BY ALL;

-- name: approximation_ratios
-- How much of the exact divergence an estimate sees, by bin of pi_old(a) (a NULL bin holds all): quantiles of
-- estimate / exact, and the ratio of their sums. Tokens whose exact divergence is 0 have no ratio; n_zero counts them.
WITH seen AS (
    SELECT bin, unnest([{'estimate': 'binary', 's': _of_exact(d_binary, d_exact)},
        {'estimate': 'topk', 's': _of_exact(d_topk, d_exact)}], recursive := true)
    FROM (SELECT _bin_of(exp(logp_old)) AS bin, * FROM _estimates($analysis, $measure)
        WHERE ($step IS NULL OR step = $step) AND ($sign IS NULL OR sign = $sign))
    GROUP BY GROUPING SETS ((bin), ()))
SELECT estimate, _bin_low(bin) AS p_low, _bin_high(bin) AS p_high, n, n_zero, q[1] AS q05, q[2] AS q25, q[3] AS q50,
    q[4] AS q75, q[5] AS q95, sum_estimate / nullif(sum_exact, 0) AS of_sums
FROM seen ORDER BY estimate, p_low NULLS FIRST;

-- name: approximation_agreement
-- The mask of an estimate against the exact one over thresholds from 1e-4 to 1, by sign of A (A <> 0). A mask drops what
-- moves away from r = 1 and has D > delta, so histograms of D, closed above, hold them all.
WITH grid AS (SELECT [pow(10, -4 + i / 15.0) for i in range(61)] AS deltas),
counted AS (
    SELECT sign, any_value(deltas) AS deltas,
        unnest([{'estimate': 'binary', 's': _masks_of(d_binary, d_exact, away, deltas)},
            {'estimate': 'topk', 's': _masks_of(d_topk, d_exact, away, deltas)}], recursive := true)
    FROM _estimates($analysis, $measure), grid WHERE sign <> 0 AND ($step IS NULL OR step = $step) GROUP BY sign),
dropped AS (
    SELECT sign, estimate, n, delta,
        coalesce(list_sum([e.value for e in map_entries(estimates) if e.key > delta]), 0)::BIGINT AS n_estimate,
        coalesce(list_sum([e.value for e in map_entries(exacts) if e.key > delta]), 0)::BIGINT AS n_exact,
        coalesce(list_sum([e.value for e in map_entries(smaller) if e.key > delta]), 0)::BIGINT AS n_both
    FROM (SELECT *, unnest(deltas) AS delta FROM counted))
SELECT sign, estimate, delta, n, unnest(_alike(n, n_estimate, n_exact, n_both))
FROM dropped ORDER BY sign DESC, estimate, delta;

-- name: approximation_masks
-- The same at the view's own thresholds. n_near: tokens whose exact divergence lies within the noise floor of delta.
WITH floor AS (
    SELECT greatest(1e-4, CASE $measure WHEN 'tv' THEN max(q99_tv) ELSE max(q99_kl) END) AS floor
    FROM noise_floor WHERE analysis = $analysis),
counted AS (
    SELECT sign, delta, count(*) FILTER (away AND abs(d_exact - delta) < floor) AS n_near, unnest([
        {'estimate': 'binary', 's': _masks_at(d_binary, d_exact, away, delta)},
        {'estimate': 'topk', 's': _masks_at(d_topk, d_exact, away, delta)}], recursive := true)
    FROM (SELECT *, CASE sign WHEN 1 THEN $delta_high ELSE $delta_low END::DOUBLE AS delta
        FROM _estimates($analysis, $measure)), floor
    WHERE sign <> 0 AND ($step IS NULL OR step = $step) GROUP BY sign, delta)
SELECT sign, estimate, delta, n, unnest(_alike(n, n_estimate, n_exact, n_both)), n_near
FROM counted ORDER BY sign DESC, estimate;

-- name: certified
-- Certified intervals of TV from what a log has, of $anchor -> $evaluated_at: from the sampled token alone and from
-- top-K, which is never wider (OLD -> NEW only), by sign of A (NULL: all tokens). n_covered of the n_exact tokens whose
-- exact TV is known lie inside, but for the rounding of float32 (1e-6); excess is the furthest outside.
WITH bounded AS (
    SELECT sign, unnest([{'source': 'sampled', 's': _certified(low_sampled, high_sampled, outside_sampled)},
        {'source': 'topk', 's': _certified(low_topk, high_topk, outside_topk)}], recursive := true)
    FROM _intervals($analysis, $anchor, $evaluated_at) WHERE $step IS NULL OR step = $step GROUP BY sign),
summed AS (
    SELECT source, sign, grouping(sign) = 1 AS whole, sum(COLUMNS('^n.*'))::BIGINT, greatest(0, max(excess)) AS excess,
        sum(sum_width) AS sum_width
    FROM bounded GROUP BY GROUPING SETS ((source, sign), (source)))
SELECT source, sign, n, n_exact, n_covered, n_covered / nullif(n_exact, 0) AS coverage,
    CASE WHEN n_exact > 0 THEN excess END AS excess, sum_width / nullif(n, 0) AS mean_width
FROM summed WHERE n > 0 AND (whole OR sign <> 0) ORDER BY source, sign DESC NULLS FIRST;

-- name: certified_masks
-- What those intervals decide of the mask at delta, in the same rows: n_toward need no divergence, n_drops have their
-- lower bound above delta, n_keeps their upper bound at most delta, n_undecided delta in between. A <> 0 alone.
WITH bounded AS (
    SELECT sign, unnest([{'source': 'sampled', 's': _certain(low_sampled, high_sampled, away, delta)},
        {'source': 'topk', 's': _certain(low_topk, high_topk, away, delta)}], recursive := true)
    FROM (SELECT *, CASE sign WHEN 1 THEN $delta_tv_high WHEN -1 THEN $delta_tv_low END::DOUBLE AS delta
        FROM _intervals($analysis, $anchor, $evaluated_at))
    WHERE $step IS NULL OR step = $step GROUP BY sign),
summed AS (
    SELECT source, sign, grouping(sign) = 1 AS whole, sum(n)::BIGINT AS n_all,
        _total(n, sign <> 0) AS n, sum(COLUMNS('^n_.*'))::BIGINT
    FROM bounded GROUP BY GROUPING SETS ((source, sign), (source)))
SELECT source, sign, n, n - n_away AS n_toward, n_drops, n_away - n_drops - n_undecided AS n_keeps, n_undecided
FROM summed WHERE n_all > 0 AND (whole OR sign <> 0) ORDER BY source, sign DESC NULLS FIRST;

-- name: topk_mass
-- The mass of A' = top-K of OLD and the sampled token, under both policies, and what lies outside as a bound:
-- exact TV - top-K TV <= min(rest of OLD, rest of NEW). By step; a NULL step holds all of the view's.
SELECT step, count(*) AS n, avg(topk_mass_old) AS mean_mass_old, avg(topk_mass_new) AS mean_mass_new,
    count(*) FILTER (topk_mass_old < 0.99) / nullif(count(*), 0) AS share_below_99,
    avg(_ceiling_topk(0, topk_mass_old, topk_mass_new)) AS mean_bound, avg(d_exact - d_topk) AS mean_gap,
    max(d_exact - d_topk) AS max_gap
FROM _estimates($analysis, 'tv') WHERE $step IS NULL OR step = $step
GROUP BY GROUPING SETS ((step), ()) ORDER BY step NULLS FIRST;

-- name: top_k_compared
-- What another K would have shown: the analyses of the run that scored the same steps from the same checkpoints in the
-- same dtype, one for each K and mode. n_only_exact_drops: tokens that the exact TV mask drops at delta and the top-K
-- one keeps; n_undecided: those that the top-K interval leaves open. A <> 0 alone.
WITH mine AS (
    SELECT s.step, s.old_checkpoint, s.new_checkpoint, a.dtype, a.run
    FROM analyses a JOIN analysis_scorings s USING (analysis)
    WHERE analysis = $analysis AND a.source = 'scored' AND ($step IS NULL OR s.step = $step)),
alike AS (
    SELECT a.analysis, a.top_k, a.topk_mode, a.created_at, list(step) AS steps
    FROM analyses a JOIN analysis_scorings s USING (analysis)
    JOIN mine USING (run, dtype, step, old_checkpoint, new_checkpoint) GROUP BY ALL),
chosen AS (
    SELECT * FROM alike
    QUALIFY row_number() OVER (PARTITION BY top_k, topk_mode
        ORDER BY analysis = $analysis DESC, len(steps) DESC, created_at DESC) = 1),
known AS (
    SELECT c.analysis, c.top_k, c.topk_mode, sign(t.advantage) AS sign, log_ratio__old_new AS log_ratio,
        tv_topk__old_new::DOUBLE AS tv_topk, tv_exact__old_new::DOUBLE AS tv_exact, topk_mass_old::DOUBLE AS mass_old,
        _ceiling_topk(tv_topk__old_new::DOUBLE, topk_mass_old::DOUBLE, topk_mass_new::DOUBLE) AS ceiling,
        CASE WHEN t.advantage > 0 THEN $delta_tv_high WHEN t.advantage < 0 THEN $delta_tv_low END AS delta
    FROM _facts t JOIN chosen c ON c.analysis = t.analysis AND list_contains(c.steps, t.step)
    WHERE counted AND tv_exact__old_new IS NOT NULL),
away AS (SELECT *, log_ratio <> 0 AND (log_ratio > 0) = (sign > 0) AND sign <> 0 AS away FROM known)
SELECT analysis, top_k, topk_mode, count(*) AS n, avg(mass_old) AS mean_mass_old, avg(ceiling - tv_topk) AS mean_bound,
    avg(tv_exact - tv_topk) AS mean_gap, count(*) FILTER (sign <> 0) AS n_gradient,
    count(*) FILTER (away AND tv_exact > delta) AS n_exact_drops,
    count(*) FILTER (away AND tv_exact > delta AND NOT tv_topk > delta) AS n_only_exact_drops,
    count(*) FILTER (away AND tv_topk <= delta AND ceiling > delta) AS n_undecided
FROM away GROUP BY ALL ORDER BY top_k, topk_mode;
