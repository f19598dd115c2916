-- What a response's page asks: every token of it under the view, and its neighbours.

-- name: tokens
-- Every response token of one rollout, the masked ones too (with NULLs), under the thresholds that are passed.
-- ppo, dppo: whether each method keeps the token's gradient.
SELECT *, CASE WHEN counted THEN _cell(ppo, dppo, advantage) END AS cell
FROM (
    SELECT *, keep_ppo(log_ratio, advantage, $eps_low, $eps_high, $dual_clip) AS ppo,
        keep_dppo(divergence, log_ratio, advantage, $delta_low, $delta_high) AS dppo
    FROM (SELECT p.*, _divergence($divergence, p) AS divergence FROM _paired($analysis, $anchor, $evaluated_at) p
        WHERE step = $step AND sample_id = $sample_id))
ORDER BY position;

-- name: rollout
SELECT r.* EXCLUDE (meta), r.meta FROM rollouts r WHERE run = $run AND step = $step AND sample_id = $sample_id;

-- name: neighbours
-- The responses before and after one, in the order of step, group and sample.
SELECT previous_step, previous_sample, next_step, next_sample FROM (
    SELECT step, sample_id,
        lag(step) OVER w AS previous_step, lag(sample_id) OVER w AS previous_sample,
        lead(step) OVER w AS next_step, lead(sample_id) OVER w AS next_sample
    FROM rollouts WHERE run = $run AND step IN (SELECT step FROM analysis_scorings WHERE analysis = $analysis)
    WINDOW w AS (ORDER BY step, group_id, sample_id))
WHERE step = $step AND sample_id = $sample_id;
