-- What a run's page asks: its steps, and what an analysis (if any) found in them. Only small published tables are read.

-- name: timeline
-- One row per uploaded step: rewards and lengths from the log; drift, bad updates and drop rates from the analysis.
FROM _timeline($run, $analysis) ORDER BY step;

-- name: step_marks
-- Each step's drift, extremes, bad updates and mismatch against the run's own first steps, and whether it left their
-- range: beyond `bound`, which is that range, widened by its own width and the noise.
FROM _marks($analysis) ORDER BY quantity, step;

-- name: mask_rates
-- Share of the tokens with A <> 0 that chosen methods drop, by step and sign; $methods is a list with commas, NULL for
-- PPO and DPPO with binary TV from the analysis's anchor. Those two are known from the first step that is published,
-- every other method once all of them are.
WITH own AS (
    SELECT s.*, 'ppo_' || a.anchor AS ppo, 'dppo_binary_tv_' || a.anchor AS dppo
    FROM step_summary s JOIN analyses a USING (analysis)
    WHERE analysis = $analysis AND sign IN (-1, 1) AND n > 0),
rates AS (
    SELECT step, ppo AS method, sign, n, n_drop_keep_ppo AS n_drop FROM own
    UNION ALL SELECT step, dppo, sign, n, n_drop_keep_dppo_binary_tv FROM own
    UNION ALL SELECT step, method, sign, n, n_drop FROM method_rates
    WHERE analysis = $analysis AND method NOT IN (SELECT unnest([ppo, dppo]) FROM own))
SELECT step, method, sign, n, n_drop, n_drop / n AS share FROM rates
WHERE list_contains(string_split($methods, ','), method)
    OR ($methods IS NULL AND method IN (SELECT unnest([ppo, dppo]) FROM own))
ORDER BY method, sign, step;

-- name: run_states
-- A number a run that changes with anything that is published of it.
WITH rows AS (
    SELECT run, hash(t) AS h FROM runs t
    UNION ALL SELECT run, hash(t) FROM checkpoints t
    UNION ALL SELECT run, hash(t) FROM _uploads t
    UNION ALL SELECT run, hash(t) FROM run_steps t
    UNION ALL SELECT run, hash(t) FROM analyses t
    UNION ALL SELECT run, hash(s) FROM analysis_scorings s JOIN analyses USING (analysis)
    UNION ALL SELECT run, hash(m) FROM _measurements m JOIN analyses USING (analysis))
SELECT run, hash(list(h ORDER BY h)) AS state FROM rows GROUP BY run;
