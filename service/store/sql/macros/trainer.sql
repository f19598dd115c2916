-- The trainer's own mask beside ours.

-- The counted tokens whose log has the trainer's own decision, with what decides ours: of an analysis, or, where
-- `pieces_` are given, of uploaded rollouts (anchor rollout, evaluated at the trainer's own π).
CREATE MACRO _kl_logged(logp, logq) AS exp(logp) * (logp - logq) +
CASE WHEN exp(logp) >= 1 THEN 0 WHEN exp(logq) >= 1 THEN 'infinity'::DOUBLE
    ELSE (1 - exp(logp)) * ln((1 - exp(logp)) / (1 - exp(logq))) END;

CREATE MACRO _under(name, divergence, log_ratio, advantage, delta_low, delta_high, floor) AS
{'method': 'dppo_' || name, 'measure': divergence, 'low': delta_low, 'high': delta_high,
    'ours': keep_dppo(divergence, log_ratio, advantage, delta_low, delta_high), 'floor': floor};

CREATE MACRO _trained(analysis_, anchor_, evaluated_at_, pieces_) AS TABLE
SELECT step, sample_id, position, token, advantage, trainer_keep, log_ratio, tv_binary, kl_binary, tv_topk, kl_topk,
    pair_tv_exact, pair_kl_exact
FROM _paired(analysis_, anchor_, evaluated_at_) WHERE counted AND trainer_keep IS NOT NULL
UNION ALL BY NAME
SELECT step, sample_id, position, advantage, trainer_keep, logp_new - logp_rollout AS log_ratio,
    abs(exp(logp_new) - exp(logp_rollout)) AS tv_binary, _kl_logged(logp_rollout, logp_new) AS kl_binary
FROM (
    SELECT step, sample_id, unnest(range(response_tokens))::UINTEGER AS position, unnest(response_mask) AS counted,
        unnest(advantage) AS advantage, unnest(trainer_keep) AS trainer_keep,
        unnest(rollout_logprobs) AS logp_rollout, unnest(new_logprobs) AS logp_new
    FROM read_parquet(coalesce(pieces_, [coalesce(getvariable('dppo_data'), '$data') || '/rollouts/0seed/0/0seed.parquet']),
        hive_partitioning = false)
    WHERE trainer_keep IS NOT NULL)
WHERE counted AND trainer_keep IS NOT NULL;

-- Each of those tokens under each method. `measure` is what the method compares with its threshold: |r - 1| or D;
-- `away`: the token moves away from r = 1, so that the method may drop it; `near`: and its measure is at the threshold.
CREATE MACRO _judged(analysis_, anchor_, evaluated_at_, pieces_, step_, eps_low_, eps_high_, dual_clip_, tv_low_,
    tv_high_, kl_low_, kl_high_) AS TABLE
SELECT * EXCLUDE (low, high, floor), coalesce(sign * log_ratio > 0, false) AS away,
    away AND abs(measure - CASE WHEN sign > 0 THEN high ELSE low END) < floor AS near
FROM (
    SELECT step, sample_id, position, token, trainer_keep, log_ratio, sign(advantage)::TINYINT AS sign,
        unnest([
            {'method': 'ppo', 'measure': abs(exp(log_ratio) - 1), 'low': eps_low_, 'high': eps_high_,
                'ours': keep_ppo(log_ratio, advantage, eps_low_, eps_high_, dual_clip_), 'floor': floor.log_ratio},
            _under('binary_tv', tv_binary, log_ratio, advantage, tv_low_, tv_high_, floor.tv),
            _under('binary_kl', kl_binary, log_ratio, advantage, kl_low_, kl_high_, floor.tv),
            _under('topk_tv', tv_topk, log_ratio, advantage, tv_low_, tv_high_, floor.tv),
            _under('topk_kl', kl_topk, log_ratio, advantage, kl_low_, kl_high_, floor.tv),
            _under('exact_tv', pair_tv_exact, log_ratio, advantage, tv_low_, tv_high_, floor.tv),
            _under('exact_kl', pair_kl_exact, log_ratio, advantage, kl_low_, kl_high_, floor.tv)], max_depth := 2)
    FROM (SELECT *, CASE WHEN evaluated_at_ = 'logged' THEN {'tv': 1e-4, 'log_ratio': 1e-3} ELSE _floor(analysis_) END
            AS floor
        FROM _trained(analysis_, anchor_, evaluated_at_, pieces_) WHERE step_ IS NULL OR step = step_));

-- Those tokens counted by what decides their class of difference, in one pass: NULL where trainer and method agree.
-- kept_up_to, dropped_from, of each method and sign: the largest measure that the trainer keeps and the smallest that
-- it drops among the tokens that move away; a threshold between them decides as the trainer does. They may be 1e-4 out
-- of order: trainers compute in float32.
CREATE MACRO _beside_trainer(analysis_, anchor_, evaluated_at_, pieces_, step_, eps_low_, eps_high_, dual_clip_, tv_low_,
    tv_high_, kl_low_, kl_high_) AS TABLE
SELECT *,
    CASE WHEN ours IS NULL THEN 'unknown' WHEN ours = trainer_keep THEN NULL WHEN sign = 0 THEN 'no_gradient'
        WHEN near THEN 'near_threshold' WHEN NOT away AND NOT trainer_keep THEN 'direction'
        WHEN away AND coalesce(kept_up_to < dropped_from + 1e-4, true) THEN 'threshold' ELSE 'other' END AS difference
FROM (
    SELECT *, max(most) FILTER (away AND trainer_keep) OVER side AS kept_up_to,
        min(least) FILTER (away AND NOT trainer_keep) OVER side AS dropped_from
    FROM (
        SELECT method, sign, trainer_keep, ours, away, near, count(*) AS n, max(measure) AS most, min(measure) AS least,
            min({'step': step, 'sample_id': sample_id, 'position': position}, 3) AS first
        FROM _judged(analysis_, anchor_, evaluated_at_, pieces_, step_, eps_low_, eps_high_, dual_clip_, tv_low_,
            tv_high_, kl_low_, kl_high_)
        GROUP BY ALL)
    WINDOW side AS (PARTITION BY method, sign));
