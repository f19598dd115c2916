-- Tables of an analysis that are stored as they were measured.

-- name: noise_floor
SELECT * FROM noise_floor WHERE analysis = $analysis AND ($step IS NULL OR step = $step) ORDER BY step;

-- name: method_agreement
SELECT * FROM method_agreement WHERE analysis = $analysis ORDER BY method, other;

-- name: method_reasons
-- Which methods' decisions are kept for an analysis, at which evaluation point, and why some are not known.
SELECT m.method, any_value(m.reason) AS reason, a.evaluated_at,
    bool_or(list_contains(k.columns, m.method)) IS TRUE AS kept
FROM method_agreement m JOIN analyses a USING (analysis) LEFT JOIN _measurements k USING (analysis)
WHERE analysis = $analysis GROUP BY m.method, a.evaluated_at ORDER BY m.method;

-- name: method_rates
SELECT * FROM method_rates WHERE analysis = $analysis AND ($step IS NULL OR step = $step) ORDER BY step, method, sign;

-- name: bounds
SELECT * FROM bounds WHERE analysis = $analysis AND ($step IS NULL OR step = $step) ORDER BY step;

-- name: step_summary
SELECT * FROM step_summary WHERE analysis = $analysis ORDER BY step, sign NULLS LAST;

-- name: step_metrics
SELECT * FROM step_metrics WHERE analysis = $analysis AND ($step IS NULL OR step = $step) ORDER BY step;

-- name: pipo
SELECT * FROM pipo WHERE analysis = $analysis AND ($step IS NULL OR step = $step) ORDER BY step;
