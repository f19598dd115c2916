-- Which tokens are dropped most, and where they stand (claims C7 and C8). A token counts under its id and the sign of A,
-- where both methods' decisions are known: every rate here has the same denominator. $method: ppo, dppo or disputed.

-- name: most_clipped
-- One row a token and sign of A, most dropped by $method first ($order = count), or furthest above the sign's base rate
-- ($order = enrichment: by the lower end of the interval and among tokens that occur $least times, so that rare ones do
-- not win by chance). enrichment: the token's rate over the base rate. n_prompts: prompts (of a step) in which $method
-- drops it. n_near: decisions within the noise floor. n_rows: tokens found by the search. Intervals are Wilson's and
-- take occurrences as independent.
WITH occurrences AS (
    SELECT key::UINTEGER AS token_id, sign, any_value(token) AS token, sum(n)::BIGINT AS n,
        _total(n, NOT ppo) AS n_ppo, _total(n, NOT dppo) AS n_dppo, _total(n, ppo <> dppo) AS n_disputed, sum(p) / sum(n) AS mean_p,
        sum(p) FILTER (drops) / sum(n) FILTER (drops) AS mean_p_dropped,
        sum(entropy) / nullif(sum(n_entropy), 0) AS mean_entropy,
        count(DISTINCT CASE WHEN drops THEN (step, group_id) END) FILTER (drops) AS n_prompts,
        count(*) FILTER (near) AS n_near
    FROM (
        SELECT *, first AS ppo, second AS dppo,
            CASE $method WHEN 'ppo' THEN NOT first WHEN 'dppo' THEN NOT second ELSE first <> second END AS drops,
            CASE $method WHEN 'ppo' THEN n_near_ppo WHEN 'dppo' THEN n_near_dppo ELSE n_near_ppo + n_near_dppo END > 0 AS near
        FROM _counted($analysis, $anchor, $evaluated_at, $divergence, $eps_low, $eps_high, $dual_clip, $delta_low,
            $delta_high, $weight_cap, 'ppo', 'dppo', $step, 'ratio', NULL, NULL, NULL, NULL, $quick, 'token')
        WHERE ($sign IS NULL OR sign = $sign) AND sign <> 0 AND cell <> 'unknown')
    GROUP BY key, sign),
rated AS (
    SELECT *, sum(n_ppo) OVER of_sign / sum(n) OVER of_sign AS base_ppo,
        sum(n_dppo) OVER of_sign / sum(n) OVER of_sign AS base_dppo,
        CASE $method WHEN 'ppo' THEN n_ppo WHEN 'dppo' THEN n_dppo ELSE n_disputed END AS n_dropped,
        nullif(sum(n_dropped) OVER of_sign / sum(n) OVER of_sign, 0) AS base_rate
    FROM occurrences WINDOW of_sign AS (PARTITION BY sign)),
found AS (
    SELECT *, _wilson(n_dropped, n, -1) AS rate_low, _wilson(n_dropped, n, 1) AS rate_high FROM rated
    WHERE ($q IS NULL OR CASE WHEN $cased IS NULL THEN contains(lower(token), lower($q)) ELSE contains(token, $q) END)
        AND ($with_id IS NULL OR token_id = $with_id) AND ($order = 'count' OR n >= $least))
SELECT token_id, token, sign, n, n_ppo, n_dppo, n_disputed,
    n_ppo / n AS ppo_rate, _wilson(n_ppo, n, -1) AS ppo_low, _wilson(n_ppo, n, 1) AS ppo_high, base_ppo,
    n_dppo / n AS dppo_rate, _wilson(n_dppo, n, -1) AS dppo_low, _wilson(n_dppo, n, 1) AS dppo_high, base_dppo,
    n_dropped / n AS rate, rate_low, rate_high, base_rate, n_dropped / n / base_rate AS enrichment,
    rate_low / base_rate AS enrichment_low, rate_high / base_rate AS enrichment_high,
    mean_p, mean_p_dropped, mean_entropy, n_prompts, n_near, count(*) OVER () AS n_rows
FROM found
ORDER BY CASE $order WHEN 'count' THEN n_dropped ELSE rate_low / base_rate END DESC NULLS LAST, n_dropped DESC, n DESC,
    token_id, sign
LIMIT $limit OFFSET $offset;

-- name: token_places
-- Where the token $token_id stands: the ones that $method drops first, most mass moved first, each with the text of the
-- tokens around it. n_rows: places there are.
WITH places AS (
    SELECT step, group_id, sample_id, position, token_id, token, sign, advantage, exp(logp_anchor) AS p,
        exp(log_ratio) AS ratio, divergence, tv_binary, entropy_old, cell,
        coalesce(CASE $method WHEN 'ppo' THEN NOT ppo WHEN 'dppo' THEN NOT dppo ELSE ppo <> dppo END, false) AS drops,
        count(*) OVER () AS n_rows
    FROM _decided($analysis, $anchor, $evaluated_at, $divergence, $eps_low, $eps_high, $dual_clip, $delta_low,
        $delta_high, $weight_cap)
    WHERE token_id = $token_id AND ($step IS NULL OR step = $step) AND ($sign IS NULL OR sign = $sign)
    ORDER BY drops DESC, tv_binary DESC NULLS LAST, step, sample_id, position LIMIT $limit OFFSET $offset),
around AS (
    SELECT p.step, p.sample_id, p.position,
        string_agg(f.text, '' ORDER BY f.position) FILTER (f.position < p.position) AS before,
        string_agg(f.text, '' ORDER BY f.position) FILTER (f.position > p.position) AS after
    FROM places p JOIN (SELECT step, sample_id, position, coalesce(token, '⟨' || token_id || '⟩') AS text
        FROM _facts WHERE analysis = $analysis) f
        ON f.step = p.step AND f.sample_id = p.sample_id
            AND f.position BETWEEN p.position::BIGINT - 6 AND p.position + 6
    GROUP BY ALL)
SELECT step, group_id, sample_id, position, token_id, token, before, after, sign, advantage, p, ratio, divergence,
    entropy_old, cell, drops, n_rows
FROM places LEFT JOIN around USING (step, sample_id, position)
ORDER BY drops DESC, tv_binary DESC NULLS LAST, step, sample_id, position;

-- name: clipped_summary
-- By sign of A: how many tokens each method drops, and how likely and how open (entropy of OLD) they were, against all
-- tokens of that sign (C7). method: all, ppo, dppo or disputed. n_near: decisions within the noise floor.
WITH cells AS (
    SELECT sign, cell, sum(n) AS n, sum(p) AS sum_p, sum(n) AS n_p, sum(entropy) AS sum_entropy,
        sum(n_entropy) AS n_entropy, sum(n_near_ppo) AS near_ppo, sum(n_near_dppo) AS near_dppo,
        count(*) FILTER (n_near_ppo + n_near_dppo > 0) AS near_any
    FROM _counted($analysis, $anchor, $evaluated_at, $divergence, $eps_low, $eps_high, $dual_clip, $delta_low,
        $delta_high, $weight_cap, 'ppo', 'dppo', $step, 'ratio', NULL, NULL, NULL, NULL, $quick, 'response')
    WHERE ($sign IS NULL OR sign = $sign) AND sign <> 0 AND cell <> 'unknown'
    GROUP BY sign, cell),
members(method, place, cell) AS (VALUES
    ('all', 0, 'both_keep'), ('all', 0, 'ppo_only_drops'), ('all', 0, 'dppo_only_drops'), ('all', 0, 'both_drop'),
    ('ppo', 1, 'ppo_only_drops'), ('ppo', 1, 'both_drop'), ('dppo', 2, 'dppo_only_drops'), ('dppo', 2, 'both_drop'),
    ('disputed', 3, 'ppo_only_drops'), ('disputed', 3, 'dppo_only_drops')),
signs AS (
    SELECT sign, sum(n) AS n, sum(near_ppo) AS ppo, sum(near_dppo) AS dppo, sum(near_any) AS disputed
    FROM cells GROUP BY sign)
SELECT s.sign, m.method, coalesce(sum(c.n), 0)::BIGINT AS n, coalesce(sum(c.n), 0) / s.n AS rate,
    sum(c.sum_p) / nullif(sum(c.n_p), 0) AS mean_p, sum(c.sum_entropy) / nullif(sum(c.n_entropy), 0) AS mean_entropy,
    CASE m.method WHEN 'ppo' THEN s.ppo WHEN 'dppo' THEN s.dppo WHEN 'disputed' THEN s.disputed END::BIGINT AS n_near
FROM signs s CROSS JOIN members m LEFT JOIN cells c ON c.sign = s.sign AND c.cell = m.cell
GROUP BY s.sign, s.n, s.ppo, s.dppo, s.disputed, m.method, m.place
ORDER BY s.sign DESC, m.place;

-- name: clipped_probability
-- How likely the anchor found the tokens that each method drops, by side: bins of ln(p / (1 - p)) in ±9.21, what lies
-- beyond in the outermost. share_*: of the sign's tokens, and of those that a method drops.
WITH counted AS (
    SELECT sign, key::INTEGER AS x_bin, sum(n)::BIGINT AS n, _total(n, NOT first) AS n_ppo,
        _total(n, NOT second) AS n_dppo
    FROM _counted($analysis, $anchor, $evaluated_at, $divergence, $eps_low, $eps_high, $dual_clip, $delta_low,
        $delta_high, $weight_cap, 'ppo', 'dppo', $step, 'ratio', NULL, NULL, NULL, NULL, $quick, 'logit')
    WHERE ($sign IS NULL OR sign = $sign) AND sign <> 0 AND cell <> 'unknown' AND key IS NOT NULL
    GROUP BY sign, key)
SELECT sign, x_bin, ((x_bin + 0.5) / _logit_bins().n * 2 - 1) * _logit_bins().limit AS x, n, n_ppo, n_dppo,
    n / sum(n) OVER of_sign AS share, n_ppo / nullif(sum(n_ppo) OVER of_sign, 0) AS share_ppo,
    n_dppo / nullif(sum(n_dppo) OVER of_sign, 0) AS share_dppo
FROM counted WINDOW of_sign AS (PARTITION BY sign) ORDER BY sign DESC, x_bin;
