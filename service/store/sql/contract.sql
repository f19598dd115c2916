-- What readers see, and what it stands on: built into a new lens.duckdb while the catalog is attached as `catalog`;
-- $data is the data directory's absolute path. What pages ask further is in macros/.

CREATE TABLE runs AS
SELECT r.run, r.created_at, r.framework, r.temperature, r.top_p, r.top_k, r.logprobs_mode, r.tokenizer,
    count(DISTINCT u.step)::UINTEGER AS n_steps, coalesce(sum(u.rollouts), 0)::UBIGINT AS n_rollouts,
    coalesce(sum(u.tokens), 0)::UBIGINT AS n_tokens
FROM catalog.runs r LEFT JOIN catalog.upload_steps u USING (run_id) GROUP BY ALL ORDER BY r.created_at;

CREATE TABLE checkpoints AS
SELECT c.checkpoint, r.run, c.step, c.label, c.path, c.adapter, c.fingerprint
FROM catalog.checkpoints c JOIN catalog.runs r USING (run_id) ORDER BY r.run, c.step;

CREATE TABLE _uploads AS
SELECT u.upload, u.step, r.run FROM catalog.upload_steps u JOIN catalog.runs r USING (run_id);

CREATE TABLE availability AS
SELECT s.analysis, s.step, n.* EXCLUDE (scoring)
FROM catalog.analysis_scorings s JOIN catalog.availability n USING (scoring)
JOIN catalog.scorings x USING (scoring) WHERE x.finished_at IS NOT NULL ORDER BY s.analysis, s.step;

CREATE TABLE run_steps AS
SELECT r.run, u.step, sum(u.rollouts)::UBIGINT AS n_rollouts, sum(u.tokens)::UBIGINT AS n_tokens,
    sum(u.tokens) / sum(u.rollouts) AS mean_length, coalesce(sum(u.rewards), 0)::UBIGINT AS n_rewards,
    sum(u.reward_sum) / sum(u.rewards) AS mean_reward
FROM catalog.upload_steps u JOIN catalog.runs r USING (run_id) GROUP BY r.run, u.step ORDER BY r.run, u.step;

CREATE TABLE analyses AS
SELECT a.analysis, r.run, a.created_at, a.source, a.anchor, a.evaluated_at, a.eps_low, a.eps_high, a.dual_clip,
    a.delta_tv_low, a.delta_tv_high, a.delta_kl_low, a.delta_kl_high, a.weight_cap, a.top_k, a.topk_mode, a.dtype,
    a.stale
FROM catalog.analyses a JOIN catalog.runs r USING (run_id) ORDER BY a.created_at;

CREATE TABLE analysis_scorings AS
SELECT s.analysis, s.step, s.scoring, s.old_checkpoint, s.new_checkpoint, s.span, x.tokens AS n_tokens, x.device
FROM catalog.analysis_scorings s JOIN catalog.scorings x USING (scoring)
WHERE x.finished_at IS NOT NULL ORDER BY s.analysis, s.step;

CREATE TABLE noise_floor AS
SELECT s.analysis, s.step, n.* EXCLUDE (scoring)
FROM catalog.analysis_scorings s JOIN catalog.noise_floor n USING (scoring) ORDER BY s.analysis, s.step;

CREATE TABLE method_agreement AS FROM catalog.method_agreement ORDER BY analysis, method, other;

CREATE TABLE method_rates AS FROM catalog.method_rates ORDER BY analysis, step, method, sign;

CREATE TABLE pipo AS FROM catalog.pipo ORDER BY analysis, step;

CREATE TABLE bounds AS FROM catalog.bounds ORDER BY analysis, step;

CREATE TABLE step_summary AS FROM catalog.step_summary ORDER BY analysis, step, sign;

CREATE TABLE step_metrics AS FROM catalog.step_metrics ORDER BY analysis, step;

CREATE TABLE _measurements AS FROM catalog.measurements;

-- Masks. Every argument is cast to DOUBLE: a FLOAT against a literal would compare in FLOAT. Any NULL gives NULL;
-- dual_clip NULL means none. A = 0 keeps. ln(1 - eps_low) does not exist at eps_low >= 1: nothing is below it.
CREATE MACRO keep_ppo(log_ratio, advantage, eps_low, eps_high, dual_clip := NULL) AS
CASE
    WHEN log_ratio IS NULL OR advantage IS NULL OR eps_low IS NULL OR eps_high IS NULL THEN NULL
    WHEN advantage::DOUBLE > 0 THEN NOT (log_ratio::DOUBLE > ln(1::DOUBLE + eps_high::DOUBLE))
    WHEN advantage::DOUBLE < 0 THEN NOT (
        (eps_low::DOUBLE < 1
            AND log_ratio::DOUBLE < ln(CASE WHEN eps_low::DOUBLE < 1 THEN 1::DOUBLE - eps_low::DOUBLE ELSE 1 END))
        OR (dual_clip IS NOT NULL AND log_ratio::DOUBLE > ln(coalesce(dual_clip::DOUBLE, 1))))
    ELSE true
END;

CREATE MACRO keep_dppo(divergence, log_ratio, advantage, delta_low, delta_high) AS
CASE
    WHEN divergence IS NULL OR log_ratio IS NULL OR advantage IS NULL OR delta_low IS NULL OR delta_high IS NULL
        THEN NULL
    WHEN advantage::DOUBLE > 0 THEN NOT (log_ratio::DOUBLE > 0 AND divergence::DOUBLE > delta_high::DOUBLE)
    WHEN advantage::DOUBLE < 0 THEN NOT (log_ratio::DOUBLE < 0 AND divergence::DOUBLE > delta_low::DOUBLE)
    ELSE true
END;

-- Near the threshold: |D - delta| below `floor` on the side where DPPO could drop the token.
-- `floor` is the noise floor: the largest q99 of TV between two scorings of OLD, at least 1e-4.
CREATE MACRO _near(divergence, log_ratio, advantage, delta_low, delta_high, floor) AS
coalesce(
    (advantage > 0 AND log_ratio > 0 AND abs(divergence - delta_high) < floor)
    OR (advantage < 0 AND log_ratio < 0 AND abs(divergence - delta_low) < floor), false);

-- One column of the analysis's pair, anchor -> policy at its evaluation point.
CREATE MACRO _pick(anchor, evaluated_at, rollout_start, rollout_end, rollout_logged, old_start, old_end, old_logged) AS
CASE
    WHEN anchor = 'rollout' THEN
        CASE evaluated_at WHEN 'start' THEN rollout_start WHEN 'end' THEN rollout_end
            WHEN 'logged' THEN rollout_logged END
    WHEN anchor = 'old' THEN
        CASE evaluated_at WHEN 'start' THEN old_start WHEN 'end' THEN old_end WHEN 'logged' THEN old_logged END
END::DOUBLE;

-- explicit_cardinality: DuckDB takes all files for as small as the first one, which is the empty one that gives the
-- schema. Taken for large, they are the side of the join that is filtered while it is read: of the segments only the
-- files of the scorings asked for are opened.
CREATE VIEW rollouts AS
SELECT u.run, t.step, t.group_id, t.sample_id, t.upload, t.reward,
    CASE WHEN len(list_distinct(t.advantage)) = 1 AND list_count(t.advantage) = len(t.advantage)
        THEN t.advantage[1] END AS advantage,
    t.prompt_tokens, t.response_tokens, t.counted_tokens, t.finish_reason,
    CASE WHEN len(list_distinct(t.policy_version)) = 1 THEN t.policy_version[1] END AS policy_version,
    t.prompt_text, t.response_text, t.meta
FROM read_parquet(coalesce(getvariable('dppo_data'), '$data') || '/rollouts/*/*/*.parquet',
    hive_partitioning = false, explicit_cardinality = 1000000000) t
JOIN _uploads u ON u.upload = t.upload AND u.step = t.step;

CREATE VIEW _facts AS
SELECT a.*, s.step, t.* EXCLUDE (scoring), CASE WHEN t.counted THEN 0 END AS zero
FROM read_parquet(coalesce(getvariable('dppo_data'), '$data') || '/tokens/*/part.parquet',
    hive_partitioning = true, hive_types_autocast = false, explicit_cardinality = 1000000000, file_row_number = true) t
JOIN analysis_scorings s ON s.scoring = t.scoring
JOIN analyses a ON a.analysis = s.analysis;

-- The same, without the tokens that are quiet in every pair, and those as sums (service.store.quiet).
CREATE VIEW _moved AS
SELECT a.*, s.step, t.* EXCLUDE (scoring), CASE WHEN t.counted THEN 0 END AS zero
FROM read_parquet(coalesce(getvariable('dppo_data'), '$data') || '/tokens/*/moved.parquet',
    hive_partitioning = true, hive_types_autocast = false, explicit_cardinality = 1000000000) t
JOIN analysis_scorings s ON s.scoring = t.scoring
JOIN analyses a ON a.analysis = s.analysis;

CREATE VIEW _quiet AS
SELECT s.analysis, s.step, t.* EXCLUDE (scoring)
FROM read_parquet(coalesce(getvariable('dppo_data'), '$data') || '/tokens/*/quiet.parquet',
    hive_partitioning = true, hive_types_autocast = false, explicit_cardinality = 1000000000) t
JOIN analysis_scorings s ON s.scoring = t.scoring;

-- What every registered method decides of the counted tokens of an analysis: one BOOLEAN column a method, NULL where it
-- is not known. segment_row is the token's row in its step's segment. Taken for large, so that only the files of the
-- analysis that is asked for are read.
CREATE VIEW _decisions AS
SELECT m.analysis, t.* EXCLUDE (measurement)
FROM read_parquet(coalesce(getvariable('dppo_data'), '$data') || '/decisions/*/*.parquet',
    hive_partitioning = true, hive_types_autocast = false, explicit_cardinality = 10000000) t
JOIN _measurements m ON m.measurement = t.measurement;

CREATE VIEW tokens AS
SELECT analysis, run, step, group_id, sample_id, position, turn, token_id, token, advantage, reward,
    logp_rollout::DOUBLE AS logp_rollout, logp_old::DOUBLE AS logp_old, logp_new::DOUBLE AS logp_new,
    _pick(anchor, evaluated_at, log_ratio__rollout_old, log_ratio__rollout_new, log_ratio__rollout_logged,
        zero, log_ratio__old_new, log_ratio__logged_logged) AS log_ratio,
    _pick(anchor, evaluated_at, tv_binary__rollout_old, tv_binary__rollout_new, tv_binary__rollout_logged,
        zero, tv_binary__old_new, tv_binary__logged_logged) AS tv_binary,
    _pick(anchor, evaluated_at, kl_binary__rollout_old, kl_binary__rollout_new, kl_binary__rollout_logged,
        zero, kl_binary__old_new, kl_binary__logged_logged) AS kl_binary,
    _pick(anchor, evaluated_at, tv_topk__rollout_old, tv_topk__rollout_new, NULL, zero, tv_topk__old_new, NULL)
        AS tv_topk,
    _pick(anchor, evaluated_at, kl_topk__rollout_old, kl_topk__rollout_new, NULL, zero, kl_topk__old_new, NULL)
        AS kl_topk,
    log_ratio__old_new::DOUBLE AS log_ratio_old, tv_binary__old_new::DOUBLE AS tv_binary_old,
    kl_binary__old_new::DOUBLE AS kl_binary_old, tv_topk__old_new::DOUBLE AS tv_topk_old,
    kl_topk__old_new::DOUBLE AS kl_topk_old, tv_exact__old_new::DOUBLE AS tv_exact,
    kl_exact__old_new::DOUBLE AS kl_exact,
    log_ratio__rollout_old::DOUBLE AS log_mismatch, tv_binary__rollout_old::DOUBLE AS tv_binary_mismatch,
    tv_topk__rollout_old::DOUBLE AS tv_topk_mismatch, kl_topk__rollout_old::DOUBLE AS kl_topk_mismatch,
    logp_old_logged::DOUBLE AS logp_old_logged, logp_new_logged::DOUBLE AS logp_new_logged,
    topk_mass_old::DOUBLE AS topk_mass_old, topk_mass_new::DOUBLE AS topk_mass_new,
    entropy_old::DOUBLE AS entropy_old, entropy_new::DOUBLE AS entropy_new,
    grad_norm_new::DOUBLE AS grad_norm_new,
    keep_ppo(log_ratio, advantage, eps_low, eps_high, dual_clip) AS keep_ppo,
    keep_dppo(tv_binary, log_ratio, advantage, delta_tv_low, delta_tv_high) AS keep_dppo_binary_tv,
    keep_dppo(kl_binary, log_ratio, advantage, delta_kl_low, delta_kl_high) AS keep_dppo_binary_kl,
    keep_dppo(tv_topk, log_ratio, advantage, delta_tv_low, delta_tv_high) AS keep_dppo_topk_tv,
    keep_dppo(kl_topk, log_ratio, advantage, delta_kl_low, delta_kl_high) AS keep_dppo_topk_kl,
    keep_dppo(_pick(anchor, evaluated_at, NULL, NULL, NULL, zero, tv_exact__old_new, NULL), log_ratio, advantage,
        delta_tv_low, delta_tv_high) AS keep_dppo_exact_tv,
    keep_dppo(_pick(anchor, evaluated_at, NULL, NULL, NULL, zero, kl_exact__old_new, NULL), log_ratio, advantage,
        delta_kl_low, delta_kl_high) AS keep_dppo_exact_kl,
    trainer_keep
FROM _facts WHERE counted;
