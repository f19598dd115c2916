-- How sure the numbers of the four cells are: a bootstrap over prompts, since tokens of one response are dependent.

-- name: intervals
-- 95 % percentile intervals from 1000 replicates, each of as many groups (prompts of a step that have a token with
-- A <> 0), drawn with replacement; above 1000 groups they are pooled at random into 1000 of about equal size. One row a
-- sign of A (NULL: both) and quantity: a cell, what a method drops, what the two decide differently, or all. share: of
-- the tokens of that sign.
WITH sums AS (
    SELECT step, group_id, sign, first, second, sum(n) AS n, sum(mass) AS mass_moved,
        sum(weight) AS gradient_weight, sum(weight_norm) AS gradient_weight_norm
    FROM _counted($analysis, $anchor, $evaluated_at, $divergence, $eps_low, $eps_high, $dual_clip, $delta_low,
        $delta_high, $weight_cap, $first, $second, $step, $brush, $p_low, $p_high, $brush_low, $brush_high, $quick, 'response')
    WHERE sign <> 0 AND cell <> 'unknown' GROUP BY step, group_id, sign, first, second),
groups AS (
    SELECT step, group_id, (row_number() OVER (ORDER BY mixed) - 1) % 1000 AS place
    FROM (SELECT step, group_id, _mixed(row_number() OVER (ORDER BY step, group_id)) AS mixed
        FROM (SELECT DISTINCT step, group_id FROM sums))),
places AS (SELECT place, count(*) OVER () AS n_places FROM groups GROUP BY place),
signs AS (  -- sign 0 is both, until the end
    SELECT coalesce(sign, 0) AS sign, count(DISTINCT (step, group_id)) AS n_groups
    FROM sums GROUP BY GROUPING SETS ((sign), ())),
quantities(quantity, first, second) AS (
    VALUES ('both_keep', true, true), ($first || '_only_drops', false, true), ($second || '_only_drops', true, false),
        ('both_drop', false, false), ($first || '_drops', false, true), ($first || '_drops', false, false),
        ($second || '_drops', true, false), ($second || '_drops', false, false), ('disagree', false, true),
        ('disagree', true, false), ('all', true, true), ('all', false, true), ('all', true, false), ('all', false, false)),
placed AS (
    SELECT place, coalesce(sign, 0) AS sign, quantity, sum(n) AS n, sum(mass_moved ORDER BY part) AS mass_moved,
        sum(gradient_weight ORDER BY part) AS gradient_weight,
        sum(gradient_weight_norm ORDER BY part) AS gradient_weight_norm
    FROM (SELECT *, (step, group_id, sign, first, second) AS part FROM sums) JOIN groups USING (step, group_id) JOIN quantities USING (first, second)
    GROUP BY GROUPING SETS ((place, sign, quantity), (place, quantity))),
-- per quantity one list over the places: a place without it has none of it. any_…: whether a sum is known anywhere
-- (list_inner_product stumbles over NULL lists)
columns AS (
    SELECT s.sign, q.quantity, n_groups, _column(n, place) AS n, _column(mass_moved, place) AS mass_moved,
        _column(gradient_weight, place) AS gradient_weight, _column(gradient_weight_norm, place) AS gradient_weight_norm,
        count(mass_moved) > 0 AS any_mass, count(gradient_weight) > 0 AS any_weight,
        count(gradient_weight_norm) > 0 AS any_norm
    FROM signs s CROSS JOIN (SELECT DISTINCT quantity FROM quantities) q CROSS JOIN places p
    LEFT JOIN placed USING (place, sign, quantity) GROUP BY s.sign, q.quantity, n_groups),
-- how often a replicate drew each place; replicate -1 is what was seen: each once
draws AS (
    SELECT replicate, _drawn(replicate, place, n_places) AS place, count(*) AS n
    FROM places, range(1000) r(replicate) GROUP BY ALL),
replicates AS (
    SELECT replicate, list(coalesce(n, 0)::DOUBLE ORDER BY place) AS weights
    FROM places CROSS JOIN range(1000) r(replicate) LEFT JOIN draws USING (replicate, place) GROUP BY replicate
    UNION ALL SELECT -1, list(1::DOUBLE) FROM places),
found AS (
    SELECT sign, quantity, n_groups, replicate, list_inner_product(weights, n) AS n,
        CASE WHEN any_mass THEN list_inner_product(weights, mass_moved) END AS mass_moved,
        CASE WHEN any_weight THEN list_inner_product(weights, gradient_weight) END AS gradient_weight,
        CASE WHEN any_norm THEN list_inner_product(weights, gradient_weight_norm) END AS gradient_weight_norm
    FROM replicates CROSS JOIN columns),
shares AS (
    SELECT *, n / nullif(max(n) FILTER (quantity = 'all') OVER (PARTITION BY replicate, sign), 0) AS share FROM found)
SELECT nullif(sign, 0) AS sign, quantity, n_groups,
    _seen(share, replicate) AS share, _low(share, replicate) AS share_low, _high(share, replicate) AS share_high,
    _seen(mass_moved, replicate) AS mass_moved,
    _low(mass_moved, replicate) AS mass_moved_low, _high(mass_moved, replicate) AS mass_moved_high,
    _seen(gradient_weight, replicate) AS gradient_weight,
    _low(gradient_weight, replicate) AS gradient_weight_low, _high(gradient_weight, replicate) AS gradient_weight_high,
    _seen(gradient_weight_norm, replicate) AS gradient_weight_norm,
    _low(gradient_weight_norm, replicate) AS gradient_weight_norm_low,
    _high(gradient_weight_norm, replicate) AS gradient_weight_norm_high
FROM shares GROUP BY shares.sign, quantity, n_groups ORDER BY shares.sign DESC, quantity;
