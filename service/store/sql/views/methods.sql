-- What the page of methods asks. Rates and agreements are those of the analysis's own evaluation point and thresholds;
-- methods other than PPO and DPPO take their published defaults.

-- name: methods
-- One row per registered method: what it drops of its known tokens with A <> 0, in one step or all, and how it agrees
-- with PPO and with DPPO (binary TV) from the view's anchor over all steps. The one that drops most first.
WITH rates AS (
    SELECT method, sum(n) FILTER (sign = 1)::UBIGINT AS n_positive, sum(n) FILTER (sign = -1)::UBIGINT AS n_negative,
        sum(n_drop) FILTER (sign = 1)::UBIGINT AS n_drop_positive,
        sum(n_drop) FILTER (sign = -1)::UBIGINT AS n_drop_negative,
        sum(n_drop) / sum(n) AS drop_rate
    FROM method_rates WHERE analysis = $analysis AND ($step IS NULL OR step = $step) GROUP BY method),
pairs AS (SELECT * FROM method_agreement WHERE analysis = $analysis)
SELECT own.method, own.reason, rates.* EXCLUDE (method),
    n_drop_positive / nullif(n_positive, 0) AS drop_rate_positive,
    n_drop_negative / nullif(n_negative, 0) AS drop_rate_negative,
    ppo.agreement AS agreement_ppo, ppo.kappa AS kappa_ppo, dppo.agreement AS agreement_dppo, dppo.kappa AS kappa_dppo
FROM pairs own LEFT JOIN rates USING (method)
LEFT JOIN pairs ppo ON ppo.method = own.method AND ppo.other = 'ppo_' || $anchor
LEFT JOIN pairs dppo ON dppo.method = own.method AND dppo.other = 'dppo_binary_tv_' || $anchor
WHERE own.other = own.method
ORDER BY drop_rate DESC NULLS LAST, own.method;

-- name: method_matrix
-- How every two methods agree that know a token in common, over all steps; both in the order of their drop rates.
WITH pairs AS (SELECT * FROM method_agreement WHERE analysis = $analysis AND n > 0),
places AS (
    SELECT method, row_number() OVER (ORDER BY n_both_drop / n DESC, method) - 1 AS place
    FROM pairs WHERE other = method)
SELECT pairs.method, pairs.other, m.place, o.place AS other_place, n, n_both_keep, n_only_method_drops,
    n_only_other_drops, n_both_drop, agreement, kappa
FROM pairs JOIN places m ON m.method = pairs.method JOIN places o ON o.method = pairs.other
ORDER BY place, other_place;
