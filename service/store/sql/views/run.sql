-- What a run's page asks: its steps, and what an analysis (if any) found in them.

-- name: timeline
-- One row per uploaded step: rewards and lengths from the log, drift and mask rates from the analysis (if any).
WITH logged AS (
    SELECT step, count(*) AS n_rollouts, avg(reward) AS mean_reward, avg(response_tokens) AS mean_length
    FROM rollouts WHERE run = $run GROUP BY step),
summary AS (
    SELECT step, sum(n)::BIGINT AS n, sum(n_null)::BIGINT AS n_null,
        sum(n * mean_abs_dp) / sum(n) FILTER (mean_abs_dp IS NOT NULL) AS mean_abs_dp,
        min(min_dp) AS min_dp, max(max_dp) AS max_dp,
        sum((n + n_null) * mean_entropy_old) / sum(n + n_null) FILTER (mean_entropy_old IS NOT NULL) AS mean_entropy_old,
        max(n_drop_keep_ppo / nullif(n, 0)) FILTER (sign = 1) AS ppo_positive,
        max(n_drop_keep_ppo / nullif(n, 0)) FILTER (sign = -1) AS ppo_negative,
        max(n_drop_keep_dppo_binary_tv / nullif(n, 0)) FILTER (sign = 1) AS binary_tv_positive,
        max(n_drop_keep_dppo_binary_tv / nullif(n, 0)) FILTER (sign = -1) AS binary_tv_negative,
        max(n_drop_keep_dppo_binary_kl / nullif(n, 0)) FILTER (sign = 1) AS binary_kl_positive,
        max(n_drop_keep_dppo_binary_kl / nullif(n, 0)) FILTER (sign = -1) AS binary_kl_negative
    FROM step_summary WHERE analysis = $analysis GROUP BY step)
SELECT logged.step, n_rollouts, mean_reward, mean_length, summary.* EXCLUDE (step), f.q99_tv AS noise_tv,
    a.anchor, a.evaluated_at
FROM logged LEFT JOIN summary ON summary.step = logged.step LEFT JOIN analyses a ON a.analysis = $analysis
LEFT JOIN noise_floor f ON f.analysis = $analysis AND f.step = logged.step
ORDER BY logged.step;
