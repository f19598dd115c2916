-- What a response's page asks: every token of it under the view, and its neighbours.

-- name: tokens
-- Every response token of one rollout, the masked ones too (with NULLs), under the thresholds that are passed.
-- ppo, dppo: whether each method keeps the token's gradient.
FROM _response($analysis, $anchor, $evaluated_at, $divergence, $eps_low, $eps_high, $dual_clip, $delta_low, $delta_high,
    $step, $sample_id)
ORDER BY position;

-- name: token
-- Every number of one token: the row of `tokens` at position $at.
FROM _response($analysis, $anchor, $evaluated_at, $divergence, $eps_low, $eps_high, $dual_clip, $delta_low, $delta_high,
    $step, $sample_id)
WHERE position = $at;

-- name: kinds
-- What happens to each token of a response, in order: the letter of its cell, m where it is masked.
SELECT coalesce(string_agg(CASE cell WHEN 'both_keep' THEN 'k' WHEN 'ppo_only_drops' THEN 'p' WHEN 'dppo_only_drops' THEN 'd'
    WHEN 'both_drop' THEN 'b' WHEN 'no_gradient' THEN 'z' WHEN 'unknown' THEN 'u' ELSE 'm' END, '' ORDER BY position), '')
    AS kinds
FROM _response($analysis, $anchor, $evaluated_at, $divergence, $eps_low, $eps_high, $dual_clip, $delta_low, $delta_high,
    $step, $sample_id);

-- name: stretch
-- The tokens from $first to $last of a response with their metric. level: how deep its colour is, from -6 to 6, the
-- deepest at ±$reach and beyond; 0 or NULL: none.
SELECT *, CASE WHEN metric IS NOT NULL AND $reach > 0 THEN round(6 * greatest(-1, least(1, metric / $reach))) END::TINYINT
    AS level
FROM (SELECT *, _metric($metric, t) AS metric
    FROM _response($analysis, $anchor, $evaluated_at, $divergence, $eps_low, $eps_high, $dual_clip, $delta_low,
        $delta_high, $step, $sample_id) t
    WHERE position BETWEEN $first AND $last)
ORDER BY position;

-- name: metric_scale
-- How far a metric reaches in a step: 99 % of its counted tokens lie within ±reach. Masked tokens take no part.
SELECT count(*) AS n_counted, count(metric) AS n, quantile_cont(abs(metric), 0.99) AS reach
FROM (SELECT _metric($metric, t) AS metric FROM _paired($analysis, $anchor, $evaluated_at) t
    WHERE step = $step AND counted);

-- name: strip
-- What is drawn of a response: all of at most $most tokens; of more, the $dropped that moved most mass of those that a
-- method drops, and in each of $stretches equal stretches the largest |log ratio| and the largest divergence.
WITH response AS (
    SELECT *, _metric($metric, t) AS metric, count(*) OVER () AS n_tokens, cell IN ('ppo_only_drops', 'dppo_only_drops', 'both_drop') AS drops
    FROM _response($analysis, $anchor, $evaluated_at, $divergence, $eps_low, $eps_high, $dual_clip, $delta_low,
        $delta_high, $step, $sample_id) t),
placed AS (SELECT *, floor(position * $stretches / n_tokens) AS stretch FROM response)
SELECT position, token, token_id, turn, advantage, log_ratio, divergence, metric, cell, n_tokens
FROM placed
QUALIFY n_tokens <= $most
    OR (drops AND row_number() OVER (PARTITION BY drops ORDER BY tv_binary DESC, position) <= $dropped)
    OR row_number() OVER (PARTITION BY stretch ORDER BY abs(log_ratio) DESC NULLS LAST, position) = 1
    OR row_number() OVER (PARTITION BY stretch ORDER BY divergence DESC NULLS LAST, position) = 1
ORDER BY position;

-- name: turns
-- The counted tokens of a response by turn (a round of a multi-turn response), where the log has turns: how far the
-- policies lie apart, and what each method drops of the n_rated tokens with A <> 0 whose decision both know.
SELECT turn, min(position) AS first_position, count(*) AS n, avg(tv_binary) AS mean_abs_dp,
    avg(log_mismatch) AS mean_mismatch, avg(abs(log_mismatch)) AS mean_abs_mismatch,
    count(*) FILTER (cell NOT IN ('unknown', 'no_gradient')) AS n_rated,
    count(*) FILTER (cell IN ('ppo_only_drops', 'both_drop')) AS n_ppo,
    count(*) FILTER (cell IN ('dppo_only_drops', 'both_drop')) AS n_dppo,
    count(*) FILTER (cell IN ('ppo_only_drops', 'dppo_only_drops')) AS n_disputed,
    count(*) FILTER (near_ppo) AS n_near_ppo, count(*) FILTER (near_dppo) AS n_near_dppo
FROM _decided($analysis, $anchor, $evaluated_at, $divergence, $eps_low, $eps_high, $dual_clip, $delta_low, $delta_high,
    $weight_cap)
WHERE step = $step AND sample_id = $sample_id AND turn IS NOT NULL
GROUP BY turn ORDER BY turn;

-- name: siblings
-- The responses to the same prompt in the same step, best reward first, with what the methods do to their tokens.
WITH prompt AS (SELECT group_id FROM rollouts WHERE run = $run AND step = $step AND sample_id = $sample_id),
decided AS (
    SELECT sample_id, count(*) FILTER (cell = 'ppo_only_drops') AS n_ppo_only,
        count(*) FILTER (cell = 'dppo_only_drops') AS n_dppo_only, count(*) FILTER (cell = 'both_drop') AS n_both,
        avg(tv_binary) AS mean_abs_dp
    FROM _decided($analysis, $anchor, $evaluated_at, $divergence, $eps_low, $eps_high, $dual_clip, $delta_low,
        $delta_high, $weight_cap)
    WHERE step = $step AND group_id = (FROM prompt)
    GROUP BY sample_id)
SELECT r.sample_id, r.group_id, r.reward, r.advantage, r.response_tokens, r.counted_tokens, r.finish_reason,
    n_ppo_only, n_dppo_only, n_both, mean_abs_dp
FROM rollouts r LEFT JOIN decided USING (sample_id)
WHERE r.run = $run AND r.step = $step AND r.group_id = (FROM prompt)
ORDER BY r.reward DESC NULLS LAST, r.sample_id LIMIT $limit OFFSET $offset;

-- name: response_text
-- A response as one text, from its decoded tokens; an id in brackets stands for one that was not decoded.
SELECT string_agg(coalesce(token, '⟨' || token_id || '⟩'), '' ORDER BY position) AS text
FROM _facts WHERE analysis = $analysis AND step = $step AND sample_id = $sample_id;

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
