-- One step of an analysis, by sign of the advantage (NULL without one). n counts tokens whose pair is known, n_null
-- those whose pair is not; dp = π(a) − anchor(a). A method's drops are NULL where its divergence is unknown for all.
INSERT INTO lens.step_summary
SELECT t.analysis, t.step, sign(t.advantage)::TINYINT AS sign,
    count(t.log_ratio) AS n, count(*) - count(t.log_ratio) AS n_null,
    avg(t.tv_binary) AS mean_abs_dp,
    min(sign(t.log_ratio) * t.tv_binary) AS min_dp, max(sign(t.log_ratio) * t.tv_binary) AS max_dp,
    avg(t.log_ratio) AS mean_log_ratio, quantile_cont(t.log_ratio, 0.01) AS q01_log_ratio,
    quantile_cont(t.log_ratio, 0.5) AS q50_log_ratio, quantile_cont(t.log_ratio, 0.99) AS q99_log_ratio,
    avg(t.tv_binary) AS mean_tv_binary, quantile_cont(t.tv_binary, 0.01) AS q01_tv_binary,
    quantile_cont(t.tv_binary, 0.5) AS q50_tv_binary, quantile_cont(t.tv_binary, 0.99) AS q99_tv_binary,
    avg(t.entropy_old) AS mean_entropy_old,
    CASE WHEN count(t.keep_ppo) > 0 THEN count(*) FILTER (NOT t.keep_ppo) END AS n_drop_keep_ppo,
    CASE WHEN count(t.keep_dppo_binary_tv) > 0 THEN count(*) FILTER (NOT t.keep_dppo_binary_tv) END,
    CASE WHEN count(t.keep_dppo_binary_kl) > 0 THEN count(*) FILTER (NOT t.keep_dppo_binary_kl) END,
    CASE WHEN count(t.keep_dppo_topk_tv) > 0 THEN count(*) FILTER (NOT t.keep_dppo_topk_tv) END,
    CASE WHEN count(t.keep_dppo_topk_kl) > 0 THEN count(*) FILTER (NOT t.keep_dppo_topk_kl) END,
    CASE WHEN count(t.keep_dppo_exact_tv) > 0 THEN count(*) FILTER (NOT t.keep_dppo_exact_tv) END,
    CASE WHEN count(t.keep_dppo_exact_kl) > 0 THEN count(*) FILTER (NOT t.keep_dppo_exact_kl) END,
    count(*) FILTER (_near(t.tv_binary, t.log_ratio, t.advantage, a.delta_tv_low, a.delta_tv_high,
        greatest(1e-4, f.q99_tv)))
        AS n_near_threshold
FROM lens.tokens t JOIN lens.analyses a USING (analysis)
LEFT JOIN lens.noise_floor f ON f.analysis = t.analysis AND f.step = t.step
WHERE t.analysis = $analysis AND t.step = $step
GROUP BY t.analysis, t.step, sign(t.advantage);
