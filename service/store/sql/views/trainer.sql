-- The trainer's own mask, where the log has it, against ours.

-- name: has_trainer_mask
-- Whether a counted token of the analysis has the trainer's own decision.
SELECT count(*) > 0 AS has_trainer FROM (
    SELECT 1 FROM _facts WHERE analysis = $analysis AND counted AND trainer_keep IS NOT NULL
        AND ($step IS NULL OR step = $step) LIMIT 1);

-- name: trainer_agreement
-- The trainer's own mask against each method's, by sign of A. Counts of what differs add up to n_only_*; A = 0 has no
-- gradient and no rate.
SELECT method, sign, $anchor AS anchor, $evaluated_at AS evaluated_at, n, n_both_keep, n_only_trainer_drops,
    n_only_ours_drops, n_both_drop,
    CASE WHEN sign <> 0 THEN (n_both_keep + n_both_drop) / nullif(n, 0) END AS agreement,
    CASE WHEN sign <> 0 AND n > 0 THEN _kappa(n_both_keep, n_only_trainer_drops, n_only_ours_drops, n_both_drop) END
        AS kappa,
    n_near_threshold, n_differ_near, n_differ_direction, n_differ_threshold, n_differ_other, kept_up_to, dropped_from,
    n_unknown
FROM (
    SELECT method, sign, _total(n, ours IS NOT NULL) AS n, _total(n, trainer_keep AND ours) AS n_both_keep,
        _total(n, NOT trainer_keep AND ours) AS n_only_trainer_drops,
        _total(n, trainer_keep AND NOT ours) AS n_only_ours_drops,
        _total(n, NOT trainer_keep AND NOT ours) AS n_both_drop, _total(n, near) AS n_near_threshold,
        _total(n, difference = 'near_threshold') AS n_differ_near,
        _total(n, difference = 'direction') AS n_differ_direction,
        _total(n, difference = 'threshold') AS n_differ_threshold, _total(n, difference = 'other') AS n_differ_other,
        any_value(kept_up_to) AS kept_up_to, any_value(dropped_from) AS dropped_from,
        _total(n, ours IS NULL) AS n_unknown
    FROM _beside_trainer($analysis, $anchor, $evaluated_at, NULL, $step, $eps_low, $eps_high, $dual_clip, $delta_tv_low,
        $delta_tv_high, $delta_kl_low, $delta_kl_high)
    GROUP BY method, sign)
ORDER BY method <> 'ppo', method, sign NULLS LAST;

-- name: trainer_differences
-- The tokens that the trainer and DPPO by $divergence decide differently, or that only the trainer decides, and why.
SELECT t.step, t.sample_id, t.position, t.token, t.sign, t.trainer_keep, t.ours, c.difference, t.measure, t.log_ratio
FROM _judged($analysis, $anchor, $evaluated_at, NULL, $step, $eps_low, $eps_high, $dual_clip, $delta_tv_low,
    $delta_tv_high, $delta_kl_low, $delta_kl_high) t
JOIN _beside_trainer($analysis, $anchor, $evaluated_at, NULL, $step, $eps_low, $eps_high, $dual_clip, $delta_tv_low,
    $delta_tv_high, $delta_kl_low, $delta_kl_high) c
    ON t.method = c.method AND t.trainer_keep = c.trainer_keep AND t.sign IS NOT DISTINCT FROM c.sign
    AND t.ours IS NOT DISTINCT FROM c.ours AND t.away = c.away AND t.near IS NOT DISTINCT FROM c.near
WHERE t.method = 'dppo_' || $divergence AND c.difference IS NOT NULL AND ($sign IS NULL OR t.sign = $sign)
ORDER BY c.difference, t.step, t.sample_id, t.position LIMIT $limit;

-- name: trainer_mask
-- The trainer's mask in uploaded pieces against each method that a sampled token's log-probs decide: first the method
-- that leaves fewest differences without an explanation, then the one that agrees best. differences: [class, tokens].
WITH compared AS (FROM _beside_trainer(NULL, 'rollout', 'logged', $pieces, NULL, $eps_low, $eps_high, $dual_clip,
    $delta_tv_low, $delta_tv_high, $delta_kl_low, $delta_kl_high)),
classes AS (
    SELECT method, list({'class': difference, 'n': n}) AS differences
    FROM (SELECT method, difference, sum(n)::BIGINT AS n FROM compared WHERE difference IS NOT NULL GROUP BY ALL)
    GROUP BY method)
SELECT c.method, _total(n, sign <> 0 AND ours IS NOT NULL) AS n, _total(n, sign <> 0 AND ours = trainer_keep) AS n_alike,
    n_alike / _total(n, sign <> 0 AND ours IS NOT NULL) AS agreement, coalesce(any_value(differences), []) AS differences,
    any_value(kept_up_to) FILTER (sign < 0) AS kept_low, any_value(dropped_from) FILTER (sign < 0) AS dropped_low,
    any_value(kept_up_to) FILTER (sign > 0) AS kept_high, any_value(dropped_from) FILTER (sign > 0) AS dropped_high,
    coalesce(list_sort(flatten(list(first) FILTER (sign <> 0 AND ours <> trainer_keep)))[:3], []) AS examples
FROM compared c LEFT JOIN classes USING (method)
WHERE c.method IN ('ppo', 'dppo_binary_tv', 'dppo_binary_kl')
GROUP BY c.method HAVING _total(n, sign <> 0 AND ours IS NOT NULL) > 0
ORDER BY _total(n, difference = 'other'), n_alike DESC, c.method <> 'dppo_binary_tv', c.method;
