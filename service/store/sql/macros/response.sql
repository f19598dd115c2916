-- One response, token by token.

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
