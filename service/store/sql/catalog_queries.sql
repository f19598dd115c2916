-- name: schema_version
SELECT value FROM meta WHERE key = 'schema_version';

-- name: runs
SELECT r.*, coalesce(u.n_steps, 0) AS n_steps, coalesce(u.n_rollouts, 0) AS n_rollouts,
    coalesce(u.n_tokens, 0) AS n_tokens,
    (SELECT count(*) FROM checkpoints c WHERE c.run_id = r.run_id) AS n_checkpoints,
    (SELECT count(*) FROM analyses a WHERE a.run_id = r.run_id) AS n_analyses
FROM runs r LEFT JOIN (
    SELECT run_id, count(DISTINCT step) AS n_steps, sum(rollouts)::BIGINT AS n_rollouts,
        sum(tokens)::BIGINT AS n_tokens
    FROM upload_steps GROUP BY run_id) u USING (run_id)
WHERE $run IS NULL OR r.run = $run
ORDER BY r.created_at DESC, r.run;

-- name: run_name
SELECT run FROM runs WHERE run_id = $run_id;

-- name: delete_run
DELETE FROM runs WHERE run_id = $run_id;

-- name: checkpoints
SELECT c.*, r.run FROM checkpoints c JOIN runs r USING (run_id)
WHERE ($run_id IS NULL OR c.run_id = $run_id) AND ($checkpoint IS NULL OR c.checkpoint = $checkpoint)
ORDER BY c.step, c.created_at;

-- name: delete_checkpoint
DELETE FROM checkpoints WHERE checkpoint = $checkpoint;

-- name: delete_checkpoints_of_run
DELETE FROM checkpoints WHERE run_id = $run_id;

-- name: uploads
SELECT u.*, r.run, coalesce(s.steps, []) AS steps, s.visible IS NOT NULL AS visible
FROM uploads u JOIN runs r USING (run_id)
LEFT JOIN (SELECT upload, list(step ORDER BY step) AS steps, true AS visible FROM upload_steps GROUP BY upload) s
    USING (upload)
WHERE ($run_id IS NULL OR u.run_id = $run_id) AND ($upload IS NULL OR u.upload = $upload)
ORDER BY u.created_at, u.upload;

-- name: set_upload_warnings
UPDATE uploads SET warnings = $warnings WHERE upload = $upload;

-- name: upload_steps
SELECT * FROM upload_steps WHERE ($run_id IS NULL OR run_id = $run_id) AND ($upload IS NULL OR upload = $upload)
ORDER BY step, upload;

-- name: delete_upload
DELETE FROM uploads WHERE upload = $upload;

-- name: delete_upload_steps
DELETE FROM upload_steps WHERE upload = $upload;

-- name: delete_upload_step
DELETE FROM upload_steps WHERE run_id = $run_id AND step = $step;

-- name: delete_uploads_of_run
DELETE FROM uploads WHERE run_id = $run_id;

-- name: measure_rewards
UPDATE upload_steps s SET rewards = m.rewards, reward_sum = m.reward_sum FROM (
    SELECT step, count(reward) AS rewards, sum(reward) AS reward_sum
    FROM read_parquet($pieces, hive_partitioning = false) WHERE upload = $upload GROUP BY step) m
WHERE s.upload = $upload AND s.step = m.step;

-- name: delete_upload_steps_of_run
DELETE FROM upload_steps WHERE run_id = $run_id;

-- name: mark_stale
UPDATE analyses SET stale = true WHERE run_id = $run_id AND analysis IN (
    SELECT analysis FROM analysis_scorings WHERE step = $step);

-- name: scorings
SELECT * FROM scorings WHERE ($run_id IS NULL OR run_id = $run_id) AND ($scoring IS NULL OR scoring = $scoring);

-- name: finish_scoring
UPDATE scorings SET tokens = $tokens, counts = $counts, device = $device, finished_at = $finished_at
WHERE scoring = $scoring;

-- name: delete_scoring
DELETE FROM scorings WHERE scoring = $scoring;

-- name: measure_noise
INSERT OR REPLACE INTO noise_floor
SELECT $scoring, count(noise_tv),
    quantile_cont(noise_logp::DOUBLE, 0.5), quantile_cont(noise_logp::DOUBLE, 0.9),
    quantile_cont(noise_logp::DOUBLE, 0.99), max(noise_logp::DOUBLE),
    quantile_cont(noise_tv::DOUBLE, 0.5), quantile_cont(noise_tv::DOUBLE, 0.9),
    quantile_cont(noise_tv::DOUBLE, 0.99), max(noise_tv::DOUBLE),
    quantile_cont(noise_kl::DOUBLE, 0.5), quantile_cont(noise_kl::DOUBLE, 0.9),
    quantile_cont(noise_kl::DOUBLE, 0.99), max(noise_kl::DOUBLE)
FROM read_parquet($segment);

-- name: measure_availability
INSERT OR REPLACE INTO availability
SELECT $scoring, count(log_ratio__rollout_old), count(tv_topk__rollout_old), count(log_ratio__rollout_new),
    count(tv_topk__rollout_new), count(log_ratio__rollout_logged), count(logp_old), count(logp_old), count(logp_old),
    count(log_ratio__old_new), count(tv_topk__old_new), count(tv_exact__old_new), count(log_ratio__logged_logged)
FROM read_parquet($segment, hive_partitioning = false) WHERE counted;

-- name: not_condensed
SELECT scoring FROM scorings WHERE finished_at IS NOT NULL AND scoring NOT IN (SELECT scoring FROM availability);

-- name: delete_availability
DELETE FROM availability WHERE scoring = $scoring;

-- name: delete_noise_floor
DELETE FROM noise_floor WHERE scoring = $scoring;

-- name: measurements
SELECT measurement, columns FROM measurements WHERE analysis = $analysis;

-- name: delete_measurements
DELETE FROM measurements WHERE analysis = $analysis;

-- name: keep_method_agreement
INSERT INTO method_agreement BY NAME SELECT $analysis AS analysis, * FROM read_parquet($path);

-- name: delete_method_agreement
DELETE FROM method_agreement WHERE analysis = $analysis;

-- name: keep_method_rates
INSERT INTO method_rates BY NAME SELECT $analysis AS analysis, * FROM read_parquet($path);

-- name: delete_method_rates
DELETE FROM method_rates WHERE analysis = $analysis;

-- name: keep_pipo
INSERT INTO pipo BY NAME SELECT $analysis AS analysis, * FROM read_parquet($path);

-- name: delete_pipo
DELETE FROM pipo WHERE analysis = $analysis;

-- name: keep_bounds
INSERT INTO bounds BY NAME SELECT $analysis AS analysis, * FROM read_parquet($path);

-- name: delete_bounds
DELETE FROM bounds WHERE analysis = $analysis;

-- name: orphan_scorings
SELECT scoring FROM scorings WHERE run_id = $run_id
    AND scoring NOT IN (SELECT scoring FROM analysis_scorings);

-- name: analyses
SELECT a.*, r.run,
    (SELECT count(*) FROM analysis_scorings s WHERE s.analysis = a.analysis) AS n_steps,
    (SELECT count(*) FROM analysis_scorings s JOIN scorings x USING (scoring)
        WHERE s.analysis = a.analysis AND x.finished_at IS NOT NULL) AS n_finished,
    (SELECT coalesce(sum(x.tokens), 0)::BIGINT FROM analysis_scorings s JOIN scorings x USING (scoring)
        WHERE s.analysis = a.analysis AND x.finished_at IS NOT NULL) AS n_tokens
FROM analyses a JOIN runs r USING (run_id)
WHERE ($run_id IS NULL OR a.run_id = $run_id) AND ($analysis IS NULL OR a.analysis = $analysis)
ORDER BY a.created_at DESC, a.analysis;

-- name: analysis_steps
SELECT s.*, x.inputs, x.tokens, x.counts, x.device, x.finished_at IS NOT NULL AS finished
FROM analysis_scorings s LEFT JOIN scorings x USING (scoring) WHERE s.analysis = $analysis ORDER BY s.step;

-- name: set_analysis_warnings
UPDATE analyses SET warnings = $warnings, stale = false WHERE analysis = $analysis;

-- name: delete_analysis
DELETE FROM analyses WHERE analysis = $analysis;

-- name: delete_analysis_scorings
DELETE FROM analysis_scorings WHERE analysis = $analysis;

-- name: delete_step_summary
DELETE FROM step_summary WHERE analysis = $analysis;

-- name: delete_step_metrics
DELETE FROM step_metrics WHERE analysis = $analysis;

-- name: unsummarised
SELECT s.analysis, s.step FROM catalog.analysis_scorings s JOIN catalog.scorings x USING (scoring)
WHERE x.finished_at IS NOT NULL AND NOT s.summarised;

-- name: mark_summarised
UPDATE catalog.analysis_scorings SET summarised = true WHERE analysis = $analysis AND step = $step;

-- name: jobs
SELECT j.*, r.run FROM jobs j LEFT JOIN runs r USING (run_id)
WHERE ($job IS NULL OR j.job = $job) AND ($run_id IS NULL OR j.run_id = $run_id)
    AND (NOT $unfinished OR j.state IN ('queued', 'running'))
ORDER BY j.created_at, j.job;

-- name: update_job
UPDATE jobs SET state = $state, finished_at = $finished_at, tokens_done = $tokens_done,
    tokens_total = $tokens_total, warnings = $warnings, error = $error, result = $result
WHERE job = $job;

-- name: delete_jobs_of_run
DELETE FROM jobs WHERE run_id = $run_id;

-- name: trash
SELECT path FROM trash WHERE since <= $before;

-- name: trash_all
SELECT path FROM trash;

-- name: forget_trash
DELETE FROM trash WHERE path = $path;

-- name: keep_summary
INSERT INTO catalog.step_summary
SELECT * FROM lens.step_summary WHERE analysis = $analysis AND step = $step;

-- name: keep_metrics
INSERT INTO catalog.step_metrics
SELECT * FROM lens.step_metrics WHERE analysis = $analysis AND step = $step;
