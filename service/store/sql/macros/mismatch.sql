-- Mismatch and update, apart and together.

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

-- Aggregates that a page asks of several parts at once, each as one struct. Quantiles are taken in FLOAT, as what they
-- are of is stored: half the memory.
-- How far logs and probabilities spread: means, quantiles (50, 90, 99 %) and the largest; k3 = mean of r - 1 - ln r.
CREATE MACRO _spread(log, dp) AS
{'n': count(log), 'mean_log': avg(log), 'mean_abs_log': avg(abs(log)),
    'q_log': quantile_cont(abs(log)::FLOAT, [0.5, 0.9, 0.99])::DOUBLE[], 'max_abs_log': max(abs(log)),
    'mean_abs_dp': avg(dp), 'q_dp': quantile_cont(dp::FLOAT, [0.5, 0.9, 0.99])::DOUBLE[], 'max_abs_dp': max(dp),
    'k3': avg(exp(log) - 1 - log)};

-- What truncating ratios r of weights r a at cap takes away.
CREATE MACRO _over(cap, r, a) AS
{'cap': cap, 'n_truncated': count(*) FILTER (r > cap), 'lost': coalesce(sum((r - cap) * a) FILTER (r > cap), 0)};
