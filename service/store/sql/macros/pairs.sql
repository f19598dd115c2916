-- The tokens of an analysis under any anchor, evaluation point, divergence and thresholds: what sliders ask.

-- Every response token of one analysis under any anchor and evaluation point: what sliders ask. Nothing is scored
-- again. pair_tv_exact, pair_kl_exact: the exact divergence of that pair (tv_exact, kl_exact are always old -> new).
-- quick_: without the quiet ones.
CREATE MACRO _paired(analysis_, anchor_, evaluated_at_, quick_ := false) AS TABLE
SELECT step, file_row_number AS segment_row, group_id, sample_id, position, turn, token_id, token, counted, advantage,
    reward, logp_rollout::DOUBLE AS logp_rollout, logp_old::DOUBLE AS logp_old, logp_new::DOUBLE AS logp_new,
    _pick(anchor_, evaluated_at_, logp_rollout, logp_rollout, logp_rollout, logp_old, logp_old, logp_old_logged)
        AS logp_anchor,
    _pick(anchor_, evaluated_at_, log_ratio__rollout_old, log_ratio__rollout_new, log_ratio__rollout_logged,
        zero, log_ratio__old_new, log_ratio__logged_logged) AS log_ratio,
    _pick(anchor_, evaluated_at_, tv_binary__rollout_old, tv_binary__rollout_new, tv_binary__rollout_logged,
        zero, tv_binary__old_new, tv_binary__logged_logged) AS tv_binary,
    _pick(anchor_, evaluated_at_, kl_binary__rollout_old, kl_binary__rollout_new, kl_binary__rollout_logged,
        zero, kl_binary__old_new, kl_binary__logged_logged) AS kl_binary,
    _pick(anchor_, evaluated_at_, tv_topk__rollout_old, tv_topk__rollout_new, NULL, zero, tv_topk__old_new, NULL)
        AS tv_topk,
    _pick(anchor_, evaluated_at_, kl_topk__rollout_old, kl_topk__rollout_new, NULL, zero, kl_topk__old_new, NULL)
        AS kl_topk,
    _pick(anchor_, evaluated_at_, NULL, NULL, NULL, zero, tv_exact__old_new, NULL) AS pair_tv_exact,
    _pick(anchor_, evaluated_at_, NULL, NULL, NULL, zero, kl_exact__old_new, NULL) AS pair_kl_exact,
    log_ratio__old_new::DOUBLE AS log_ratio_old, tv_exact__old_new::DOUBLE AS tv_exact,
    kl_exact__old_new::DOUBLE AS kl_exact, log_ratio__rollout_old::DOUBLE AS log_mismatch,
    tv_binary__rollout_old::DOUBLE AS tv_binary_mismatch,
    logp_old_logged::DOUBLE AS logp_old_logged, logp_new_logged::DOUBLE AS logp_new_logged,
    topk_mass_old::DOUBLE AS topk_mass_old, topk_mass_new::DOUBLE AS topk_mass_new,
    entropy_old::DOUBLE AS entropy_old, entropy_new::DOUBLE AS entropy_new,
    CASE WHEN evaluated_at_ = 'end' THEN grad_norm_new::DOUBLE END AS grad_norm, trainer_keep
FROM (FROM _facts WHERE NOT quick_ UNION ALL BY NAME FROM _moved WHERE quick_) WHERE analysis = analysis_;

CREATE MACRO _divergence(name, t) AS
CASE name WHEN 'binary_tv' THEN t.tv_binary WHEN 'binary_kl' THEN t.kl_binary WHEN 'topk_tv' THEN t.tv_topk
    WHEN 'topk_kl' THEN t.kl_topk WHEN 'exact_tv' THEN t.pair_tv_exact WHEN 'exact_kl' THEN t.pair_kl_exact END;

-- The counted tokens of a view and the divergence that it chose, before any threshold.
CREATE MACRO _measured(analysis_, anchor_, evaluated_at_, divergence_, quick_ := false) AS TABLE
SELECT t.*, _divergence(divergence_, t) AS divergence
FROM _paired(analysis_, anchor_, evaluated_at_, quick_ := quick_) t WHERE counted;

CREATE MACRO _cell(ppo, dppo, advantage) AS
CASE WHEN ppo IS NULL OR dppo IS NULL THEN 'unknown' WHEN advantage = 0 THEN 'no_gradient'
    WHEN ppo AND dppo THEN 'both_keep' WHEN dppo THEN 'ppo_only_drops' WHEN ppo THEN 'dppo_only_drops'
    ELSE 'both_drop' END;

-- The noise floor of an analysis: q99 of |difference| between two scorings of OLD, the worst step's. At least 1e-4 in
-- divergence and 1e-3 in log ratio.
CREATE MACRO _floor(analysis_) AS (
    SELECT {'tv': greatest(1e-4, max(q99_tv)), 'log_ratio': greatest(1e-3, max(q99_abs_logp))}
    FROM noise_floor WHERE analysis = analysis_);

-- The counted tokens with both methods' decisions under any thresholds. near_*: within the noise floor of the ratio
-- bound, or of delta, on the side where the method could drop the token.
CREATE MACRO _decided(analysis_, anchor_, evaluated_at_, divergence_, eps_low_, eps_high_, dual_clip_, delta_low_,
    delta_high_, weight_cap_, quick_ := false) AS TABLE
SELECT *, _cell(ppo, dppo, advantage) AS cell, sign(advantage)::TINYINT AS sign,
    CASE WHEN log_ratio IS NOT NULL THEN least(exp(log_ratio), coalesce(weight_cap_, 'infinity'::DOUBLE)) END
        * abs(advantage) AS weight,  -- least() passes over a NULL
    coalesce((advantage > 0 AND abs(exp(log_ratio) - (1 + eps_high_)) < floor.log_ratio)
        OR (advantage < 0 AND abs(exp(log_ratio) - (1 - eps_low_)) < floor.log_ratio), false) AS near_ppo,
    _near(divergence, log_ratio, advantage, delta_low_, delta_high_, floor.tv) AS near_dppo
FROM (
    SELECT *, keep_ppo(log_ratio, advantage, eps_low_, eps_high_, dual_clip_) AS ppo,
        keep_dppo(divergence, log_ratio, advantage, delta_low_, delta_high_) AS dppo, _floor(analysis_) AS floor
    FROM _measured(analysis_, anchor_, evaluated_at_, divergence_, quick_ := quick_));
