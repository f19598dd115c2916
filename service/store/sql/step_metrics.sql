-- One step of an analysis, all signs of the advantage together. n counts tokens whose pair is known, n_null those whose
-- pair is not; dp = π(a) − anchor(a). Bad updates (arXiv:2602.04879 §5.3: A < 0 and μ(a) − π(a) ≥ .5) are measured from
-- μ whatever the anchor, among the n_gradient tokens with A ≠ 0 whose μ(a) is known; without any they are not known.
INSERT INTO lens.step_metrics
SELECT analysis, step, count(log_ratio) AS n, count(*) - count(log_ratio) AS n_null,
    avg(tv_binary) AS mean_abs_dp, quantile_cont(tv_binary, 0.5) AS q50_abs_dp,
    quantile_cont(tv_binary, 0.9) AS q90_abs_dp, quantile_cont(tv_binary, 0.99) AS q99_abs_dp,
    min(sign(log_ratio) * tv_binary) AS min_dp, max(sign(log_ratio) * tv_binary) AS max_dp,
    count(rollout_dp) FILTER (advantage <> 0) AS n_gradient,
    CASE WHEN n_gradient > 0 THEN count(*) FILTER (advantage < 0 AND rollout_dp <= -0.5) END AS n_bad_update,
    CASE WHEN n_gradient > 0 THEN count(*) FILTER (advantage < 0 AND abs(rollout_dp + 0.5) < floor) END
        AS n_near_bad_update,
    avg(tv_binary_mismatch) AS mean_tv_binary_mismatch, avg(abs(log_mismatch)) AS mean_abs_log_mismatch,
    avg(tv_binary_old) AS mean_tv_binary_old, avg(entropy_old) AS mean_entropy_old,
    avg(topk_mass_old) AS mean_topk_mass_old
FROM (
    SELECT t.analysis, t.step, t.advantage, t.entropy_old::DOUBLE AS entropy_old,
        t.topk_mass_old::DOUBLE AS topk_mass_old, t.log_ratio__rollout_old::DOUBLE AS log_mismatch,
        t.tv_binary__rollout_old::DOUBLE AS tv_binary_mismatch, t.tv_binary__old_new::DOUBLE AS tv_binary_old,
        _pick(t.anchor, t.evaluated_at, t.log_ratio__rollout_old, t.log_ratio__rollout_new,
            t.log_ratio__rollout_logged, t.zero, t.log_ratio__old_new, t.log_ratio__logged_logged) AS log_ratio,
        _pick(t.anchor, t.evaluated_at, t.tv_binary__rollout_old, t.tv_binary__rollout_new,
            t.tv_binary__rollout_logged, t.zero, t.tv_binary__old_new, t.tv_binary__logged_logged) AS tv_binary,
        _pick('rollout', t.evaluated_at, sign(t.log_ratio__rollout_old) * t.tv_binary__rollout_old,
            sign(t.log_ratio__rollout_new) * t.tv_binary__rollout_new,
            sign(t.log_ratio__rollout_logged) * t.tv_binary__rollout_logged, NULL, NULL, NULL) AS rollout_dp,
        greatest(1e-4, f.q99_tv) AS floor
    FROM lens._facts t LEFT JOIN lens.noise_floor f ON f.analysis = t.analysis AND f.step = t.step
    WHERE t.analysis = $analysis AND t.step = $step AND t.counted)
GROUP BY analysis, step;
