-- A run over its steps.

-- One row per uploaded step of a run: what was logged, and what an analysis (NULL: none) found, at its own thresholds.
-- <method>_positive, _negative: share of the tokens with that sign of A that the method drops.
CREATE MACRO _timeline(run_, analysis_) AS TABLE
WITH rates AS (
    SELECT step,
        max(n_drop_keep_ppo / nullif(n, 0)) FILTER (sign = 1) AS ppo_positive,
        max(n_drop_keep_ppo / nullif(n, 0)) FILTER (sign = -1) AS ppo_negative,
        max(n_drop_keep_dppo_binary_tv / nullif(n, 0)) FILTER (sign = 1) AS binary_tv_positive,
        max(n_drop_keep_dppo_binary_tv / nullif(n, 0)) FILTER (sign = -1) AS binary_tv_negative,
        max(n_drop_keep_dppo_binary_kl / nullif(n, 0)) FILTER (sign = 1) AS binary_kl_positive,
        max(n_drop_keep_dppo_binary_kl / nullif(n, 0)) FILTER (sign = -1) AS binary_kl_negative
    FROM step_summary WHERE analysis = analysis_ GROUP BY step)
SELECT l.step, l.n_rollouts, l.mean_reward, l.mean_length, m.* EXCLUDE (analysis, step),
    m.n_bad_update / nullif(m.n_gradient, 0) AS bad_share, r.* EXCLUDE (step), p.improvement,
    f.q99_tv AS noise_tv, a.anchor, a.evaluated_at
FROM run_steps l
LEFT JOIN analyses a ON a.analysis = analysis_
LEFT JOIN step_metrics m ON m.analysis = analysis_ AND m.step = l.step
LEFT JOIN rates r ON r.step = l.step
LEFT JOIN pipo p ON p.analysis = analysis_ AND p.step = l.step
LEFT JOIN noise_floor f ON f.analysis = analysis_ AND f.step = l.step
WHERE l.run = run_;

-- Each step's drift against the run's own first steps: there is no universal threshold (arXiv:2602.04879 Fig. 3, 5).
-- The first 10 % of the steps at which a quantity is known, at least 3, give its range [reference_low,
-- reference_high]. A later step is marked where it lies outward of that range by more than the range's width and the
-- noise: of a probability the noise floor, of the bad updates' share one token and those within the floor of .5.
-- Outward is up, but down for min_dp. The first steps themselves have no bound.
CREATE MACRO _marks(analysis_) AS TABLE
WITH measured AS (
    SELECT step,
        unnest(['mean_abs_dp', 'max_dp', 'min_dp', 'bad_share', 'mean_tv_binary_mismatch']) AS quantity,
        unnest([mean_abs_dp, max_dp, min_dp, n_bad_update / nullif(n_gradient, 0),
            CASE WHEN drift_is_mismatch THEN NULL ELSE mean_tv_binary_mismatch END]) AS value,
        unnest([floor, floor, floor, (n_near_bad_update + 1) / nullif(n_gradient, 0), floor]) AS noise
    FROM (
        SELECT m.*, _floor(analysis_).tv AS floor, anchor = 'rollout' AND evaluated_at = 'start' AS drift_is_mismatch
        FROM step_metrics m JOIN analyses USING (analysis) WHERE m.analysis = analysis_)),
placed AS (
    SELECT *, CASE quantity WHEN 'min_dp' THEN -1 ELSE 1 END AS outward,
        row_number() OVER (PARTITION BY quantity ORDER BY step) AS place,
        least(greatest(3, ceil(0.1 * count(*) OVER (PARTITION BY quantity))),
            count(*) OVER (PARTITION BY quantity))::UINTEGER AS n_reference
    FROM measured WHERE value IS NOT NULL),
referred AS (
    SELECT *, min(value) FILTER (place <= n_reference) OVER (PARTITION BY quantity) AS reference_low,
        max(value) FILTER (place <= n_reference) OVER (PARTITION BY quantity) AS reference_high
    FROM placed),
bounded AS (
    SELECT *, CASE WHEN place > n_reference THEN CASE outward WHEN 1 THEN reference_high ELSE reference_low END
        + outward * (reference_high - reference_low + noise) END AS bound
    FROM referred)
SELECT step, quantity, value, n_reference, reference_low, reference_high, noise, bound,
    coalesce(outward * value > outward * bound, false) AS marked
FROM bounded;
