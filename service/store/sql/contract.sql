-- What readers see: built into a new lens.duckdb while the catalog is attached as `catalog`; $data is the data
-- directory's absolute path.

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

CREATE MACRO _cell(ppo, dppo, advantage) AS
CASE WHEN ppo IS NULL OR dppo IS NULL THEN 'unknown' WHEN advantage = 0 THEN 'no_gradient'
    WHEN ppo AND dppo THEN 'both_keep' WHEN dppo THEN 'ppo_only_drops' WHEN ppo THEN 'dppo_only_drops'
    ELSE 'both_drop' END;

CREATE MACRO _kl_binary(p, q) AS
    p * ln(p / q) + (1 - p) * ln((1 - p) / (1 - q));

-- Bins of a probability: [0, .001), [.001, .01), … [.99, 1]. _bin_of numbers them from 1.
CREATE MACRO _bin_low(bin) AS ([0, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99]::DOUBLE[])[bin];
CREATE MACRO _bin_high(bin) AS ([0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 1]::DOUBLE[])[bin];
CREATE MACRO _bin_of(p) AS
CASE WHEN p < 0.001 THEN 1 WHEN p < 0.01 THEN 2 WHEN p < 0.1 THEN 3 WHEN p < 0.5 THEN 4 WHEN p < 0.9 THEN 5
    WHEN p < 0.99 THEN 6 WHEN p IS NOT NULL THEN 7 END;

-- Certified upper bounds of TV (dppo_core.intervals): from the sampled token, TV = 1 - sum min(P, Q) <= 1 - min(P(a),
-- Q(a)); from top-K, TV <= TV_topK + min(rest of P, rest of Q).
CREATE MACRO _ceiling_sampled(logp_anchor, logp_new) AS
CASE WHEN logp_anchor IS NOT NULL AND logp_new IS NOT NULL THEN 1 - exp(least(logp_anchor, logp_new)) END;
CREATE MACRO _ceiling_topk(tv_topk, mass_anchor, mass_new) AS
CASE WHEN tv_topk IS NOT NULL AND mass_anchor IS NOT NULL AND mass_new IS NOT NULL
    THEN least(1, tv_topk + greatest(0, 1 - greatest(mass_anchor, mass_new))) END;

-- What one scoring knows of OLD -> NEW by each estimate of a measure ('tv', 'kl'): the only pair with an exact one.
CREATE MACRO _estimates(analysis_, measure_) AS TABLE
SELECT step, advantage, sign(advantage)::TINYINT AS sign, logp_old::DOUBLE AS logp_old,
    log_ratio__old_new::DOUBLE AS log_ratio,
    log_ratio__old_new <> 0 AND (log_ratio__old_new > 0) = (advantage > 0) AND advantage <> 0 AS away,
    (CASE measure_ WHEN 'tv' THEN tv_binary__old_new ELSE kl_binary__old_new END)::DOUBLE AS d_binary,
    (CASE measure_ WHEN 'tv' THEN tv_topk__old_new ELSE kl_topk__old_new END)::DOUBLE AS d_topk,
    (CASE measure_ WHEN 'tv' THEN tv_exact__old_new ELSE kl_exact__old_new END)::DOUBLE AS d_exact,
    topk_mass_old::DOUBLE AS topk_mass_old, topk_mass_new::DOUBLE AS topk_mass_new
FROM _facts WHERE analysis = analysis_ AND counted AND tv_exact__old_new IS NOT NULL;

CREATE MACRO _when(evaluated_at, at_start, at_end, at_logged) AS
CASE evaluated_at WHEN 'start' THEN at_start WHEN 'end' THEN at_end WHEN 'logged' THEN at_logged END::DOUBLE;

-- log r = log rho + log r': mismatch (mu -> OLD), update (OLD -> NEW) and both together (mu -> NEW) of every counted
-- token; dp_*: by how much its probability changes. At 'logged', and where no model was scored, OLD and NEW are the
-- trainer's own. What starts at mu is NULL where the logged log-probs are not those of the distribution that sampled
-- (raw, at a temperature other than 1).
CREATE MACRO _at(evaluated_at, logged, scored) AS
CASE WHEN evaluated_at = 'logged' THEN logged::DOUBLE ELSE scored::DOUBLE END;

CREATE MACRO _parts(analysis_, evaluated_at_) AS TABLE
SELECT step, group_id, sample_id, position, token_id, token, advantage, sign(advantage)::TINYINT AS sign, reward,
    logp_rollout::DOUBLE AS logp_rollout, _at(evaluated_at_, logp_old_logged, logp_old) AS logp_before,
    _at(evaluated_at_, logp_old_logged::DOUBLE - mu, log_ratio__rollout_old) AS log_mismatch,
    _at(evaluated_at_, log_ratio__logged_logged, log_ratio__old_new) AS log_update,
    _at(evaluated_at_, log_ratio__rollout_logged, log_ratio__rollout_new) AS log_together,
    _at(evaluated_at_, abs(exp(logp_old_logged::DOUBLE) - exp(mu)), tv_binary__rollout_old) AS dp_mismatch,
    _at(evaluated_at_, tv_binary__logged_logged, tv_binary__old_new) AS dp_update,
    _at(evaluated_at_, tv_binary__rollout_logged, tv_binary__rollout_new) AS dp_together,
    _at(evaluated_at_, NULL, kl_binary__rollout_old) AS kl_binary_mismatch,
    _at(evaluated_at_, NULL, tv_topk__rollout_old) AS tv_topk_mismatch,
    _at(evaluated_at_, NULL, kl_topk__rollout_old) AS kl_topk_mismatch,
    _at(evaluated_at_, NULL, tv_exact__old_new) AS tv_exact_update, logp_old_logged::DOUBLE - mu AS log_mismatch_logged
FROM (
    SELECT f.*, CASE WHEN r.logprobs_mode = 'raw' AND r.temperature <> 1 THEN NULL ELSE logp_rollout::DOUBLE END AS mu
    FROM _facts f JOIN runs r USING (run) WHERE f.analysis = analysis_ AND f.counted);

-- Aggregates that a page asks of several estimates or parts at once, each as one struct. Quantiles are taken in FLOAT,
-- as what they are of is stored: half the memory.
-- How far logs and probabilities spread: means, quantiles (50, 90, 99 %) and the largest; k3 = mean of r - 1 - ln r.
CREATE MACRO _spread(log, dp) AS
{'n': count(log), 'mean_log': avg(log), 'mean_abs_log': avg(abs(log)),
    'q_log': quantile_cont(abs(log)::FLOAT, [0.5, 0.9, 0.99])::DOUBLE[], 'max_abs_log': max(abs(log)),
    'mean_abs_dp': avg(dp), 'q_dp': quantile_cont(dp::FLOAT, [0.5, 0.9, 0.99])::DOUBLE[], 'max_abs_dp': max(dp),
    'k3': avg(exp(log) - 1 - log)};

-- How much of the exact divergence an estimate sees.
CREATE MACRO _of_exact(d, d_exact) AS
{'n': count(d), 'n_zero': count(d) FILTER (d_exact = 0),
    'q': (quantile_cont((d / d_exact)::FLOAT, [0.05, 0.25, 0.5, 0.75, 0.95]) FILTER (d_exact > 0))::DOUBLE[],
    'sum_estimate': sum(d), 'sum_exact': sum(d_exact) FILTER (d IS NOT NULL)};

-- Of tokens that move away from r = 1, how many have an estimate, the exact divergence, and both, in each bin
-- (delta before, delta].
CREATE MACRO _masks_of(d, d_exact, away, deltas) AS
{'n': count(d), 'estimates': histogram(d, deltas) FILTER (away),
    'exacts': histogram(d_exact, deltas) FILTER (away AND d IS NOT NULL),
    'smaller': histogram(least(d, d_exact), deltas) FILTER (away AND d IS NOT NULL)};

-- The same at one delta.
CREATE MACRO _masks_at(d, d_exact, away, delta) AS
{'n': count(d), 'n_estimate': count(*) FILTER (away AND d > delta),
    'n_exact': count(d) FILTER (away AND d_exact > delta), 'n_both': count(*) FILTER (away AND d > delta AND d_exact > delta)};

-- The four cells of an estimate's mask and the exact one among n tokens, and how far they agree.
CREATE MACRO _alike(n, n_estimate, n_exact, n_both) AS
{'n_both_keep': n - n_estimate - n_exact + n_both, 'n_only_estimate_drops': n_estimate - n_both,
    'n_only_exact_drops': n_exact - n_both, 'n_both_drop': n_both,
    'agreement': (n - n_estimate - n_exact + 2 * n_both) / nullif(n, 0),
    'kappa': _kappa(n - n_estimate - n_exact + n_both, n_estimate - n_both, n_exact - n_both, n_both)};

-- outside: by how much the exact TV lies outside, below 0 inside; but for the rounding of float32 (1e-6) it never does.
CREATE MACRO _outside(d_exact, low, high) AS
CASE WHEN d_exact IS NOT NULL AND low IS NOT NULL THEN greatest(low - d_exact, d_exact - high) END;
-- Certified intervals of the TV of one pair, by the sampled token and by top-K (OLD -> NEW only); away: the token moves
-- away from r = 1, so that its mask depends on TV.
CREATE MACRO _intervals(analysis_, anchor_, evaluated_at_) AS TABLE
SELECT *, _outside(tv_exact, low_sampled, high_sampled) AS outside_sampled,
    _outside(tv_exact, low_topk, high_topk) AS outside_topk
FROM (
    SELECT step, sign(advantage)::TINYINT AS sign, tv_exact, sign(advantage) * log_ratio > 0 AS away,
        CASE WHEN logp_anchor IS NOT NULL THEN tv_binary END AS low_sampled,
        _ceiling_sampled(logp_anchor, logp_anchor + log_ratio) AS high_sampled,
        CASE WHEN high_topk IS NOT NULL THEN tv_topk END AS low_topk, high_topk
    FROM (
        SELECT * REPLACE (pair_tv_exact AS tv_exact), CASE WHEN anchor_ = 'old' AND evaluated_at_ = 'end'
            THEN _ceiling_topk(tv_topk, topk_mass_old, topk_mass_new) END AS high_topk
        FROM _paired(analysis_, anchor_, evaluated_at_) WHERE counted AND log_ratio IS NOT NULL));

CREATE MACRO _certified(low, high, outside) AS
{'n': count(low), 'n_exact': count(outside), 'n_covered': count(*) FILTER (outside <= 1e-6),
    'excess': max(outside), 'sum_width': sum(high - low)};
CREATE MACRO _certain(low, high, away, delta) AS
{'n': count(low), 'n_away': count(low) FILTER (away), 'n_drops': count(*) FILTER (away AND low > delta),
    'n_undecided': count(*) FILTER (away AND low <= delta AND high > delta)};

-- What truncating ratios r of weights r a at cap takes away.
CREATE MACRO _over(cap, r, a) AS
{'cap': cap, 'n_truncated': count(*) FILTER (r > cap), 'lost': coalesce(sum((r - cap) * a) FILTER (r > cap), 0)};

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
    FROM (SELECT t.*, _divergence(divergence_, t) AS divergence
        FROM _paired(analysis_, anchor_, evaluated_at_, quick_ := quick_) t WHERE counted));

-- The counted tokens whose log has the trainer's own decision, with what decides ours: of an analysis, or, where
-- `pieces_` are given, of uploaded rollouts (anchor rollout, evaluated at the trainer's own π).
CREATE MACRO _kl_logged(logp, logq) AS exp(logp) * (logp - logq) +
CASE WHEN exp(logp) >= 1 THEN 0 WHEN exp(logq) >= 1 THEN 'infinity'::DOUBLE
    ELSE (1 - exp(logp)) * ln((1 - exp(logp)) / (1 - exp(logq))) END;

CREATE MACRO _under(name, divergence, log_ratio, advantage, delta_low, delta_high, floor) AS
{'method': 'dppo_' || name, 'measure': divergence, 'low': delta_low, 'high': delta_high,
    'ours': keep_dppo(divergence, log_ratio, advantage, delta_low, delta_high), 'floor': floor};

-- Cohen's kappa of two masks, (p_o - p_e) / (1 - p_e) times n^2 above and below; NULL where chance agreement is 1, and
-- without tokens.
CREATE MACRO _kappa(both_keep, only_first_drops, only_second_drops, both_drop) AS
2 * (both_keep::DOUBLE * both_drop - only_first_drops::DOUBLE * only_second_drops)
    / nullif((both_keep + only_first_drops)::DOUBLE * (only_first_drops + both_drop)
        + (both_keep + only_second_drops)::DOUBLE * (only_second_drops + both_drop), 0);

CREATE MACRO _total(n, which) AS coalesce(sum(n) FILTER (which), 0)::BIGINT;

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

-- Every response token of one response, the masked ones too (with NULLs), under any thresholds. ppo, dppo: whether each
-- method keeps the token's gradient.
CREATE MACRO _response(analysis_, anchor_, evaluated_at_, divergence_, eps_low_, eps_high_, dual_clip_, delta_low_,
    delta_high_, step_, sample_id_) AS TABLE
SELECT *, CASE WHEN counted THEN _cell(ppo, dppo, advantage) END AS cell
FROM (
    SELECT *, keep_ppo(log_ratio, advantage, eps_low_, eps_high_, dual_clip_) AS ppo,
        keep_dppo(divergence, log_ratio, advantage, delta_low_, delta_high_) AS dppo
    FROM (SELECT t.*, _divergence(divergence_, t) AS divergence FROM _paired(analysis_, anchor_, evaluated_at_) t
        WHERE step = step_ AND sample_id = sample_id_));

-- What a reader colours a token by. ratio and advantage have two sides, as has log_mismatch; tv_exact and kl_exact are
-- old -> new whatever the anchor.
CREATE MACRO _metric(name, t) AS
CASE name WHEN 'ratio' THEN t.log_ratio WHEN 'tv_binary' THEN t.tv_binary WHEN 'kl_binary' THEN t.kl_binary
    WHEN 'tv_topk' THEN t.tv_topk WHEN 'kl_topk' THEN t.kl_topk WHEN 'tv_exact' THEN t.tv_exact
    WHEN 'kl_exact' THEN t.kl_exact WHEN 'log_mismatch' THEN t.log_mismatch WHEN 'entropy_old' THEN t.entropy_old
    WHEN 'entropy_new' THEN t.entropy_new WHEN 'advantage' THEN t.advantage END;

-- One end of Wilson's 95 % interval of a share k of n: side -1 the lower, 1 the upper. NULL where n = 0.
-- (k + z^2/2 ± z sqrt(k (n - k) / n + z^2/4)) / (n + z^2) with z the normal's 97.5 % quantile, z^2 = 3.8414588…
CREATE MACRO _wilson(k, n, side) AS
CASE WHEN n > 0 THEN greatest(0, least(1, (k + 1.920729410347062::DOUBLE
    + side * 1.959963984540054::DOUBLE * sqrt(k::DOUBLE * (n - k) / n + 0.960364705173531::DOUBLE))
    / (n + 3.841458820694124::DOUBLE))) END;

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
