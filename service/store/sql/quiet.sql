-- A segment in two smaller files: the tokens that moved, one by one, and the quiet ones as sums. $segment is its path,
-- and $log_ratio, $tv and $kl what a quiet token stays within in every pair that is known of it; a token whose pair is
-- known in part only, or without advantage, is not quiet.
CREATE MACRO _within(log_ratio, tv, kl) AS
CASE WHEN log_ratio IS NULL AND tv IS NULL AND kl IS NULL THEN true
    ELSE coalesce(abs(log_ratio) <= $log_ratio AND tv <= $tv AND kl <= $kl, false) END;

CREATE TEMP VIEW _all AS
SELECT *, advantage IS NOT NULL AND _within(log_ratio__rollout_old, tv_binary__rollout_old, kl_binary__rollout_old)
    AND _within(log_ratio__rollout_new, tv_binary__rollout_new, kl_binary__rollout_new)
    AND _within(log_ratio__rollout_logged, tv_binary__rollout_logged, kl_binary__rollout_logged)
    AND _within(log_ratio__old_new, tv_binary__old_new, kl_binary__old_new)
    AND _within(log_ratio__logged_logged, tv_binary__logged_logged, kl_binary__logged_logged) AS quiet
FROM read_parquet('$segment', hive_partitioning = false, file_row_number = true) WHERE counted;

COPY (SELECT * EXCLUDE (quiet) FROM _all WHERE NOT quiet ORDER BY file_row_number)
TO '$folder/moved.parquet' (FORMAT parquet, COMPRESSION lz4_raw);

-- Sums over quiet tokens by pair, sign of A and one dimension's key, where the pair is known; `response`: by response, all
-- of them.
COPY (
    WITH paired AS (
        SELECT group_id, sample_id, position, token_id, token, advantage, reward, entropy_old::DOUBLE AS entropy_old,
            grad_norm_new::DOUBLE AS grad_norm, unnest([
                {'pair': 'rollout_old', 'logp': logp_rollout, 'log_ratio': log_ratio__rollout_old, 'tv': tv_binary__rollout_old},
                {'pair': 'rollout_new', 'logp': logp_rollout, 'log_ratio': log_ratio__rollout_new, 'tv': tv_binary__rollout_new},
                {'pair': 'rollout_logged', 'logp': logp_rollout, 'log_ratio': log_ratio__rollout_logged, 'tv': tv_binary__rollout_logged},
                {'pair': 'old_new', 'logp': logp_old, 'log_ratio': log_ratio__old_new, 'tv': tv_binary__old_new},
                {'pair': 'logged_logged', 'logp': logp_old_logged, 'log_ratio': log_ratio__logged_logged, 'tv': tv_binary__logged_logged}],
                recursive := true)
        FROM _all WHERE quiet),
    placed AS (
        SELECT *, exp(log_ratio::DOUBLE) * abs(advantage) AS weight, unnest(['response', 'probability', 'entropy', 'position', 'token', 'logit']) AS dimension
        FROM paired)
    SELECT pair, dimension, _key(dimension, logp::DOUBLE, entropy_old, position, token_id) AS key,
        CASE WHEN dimension = 'response' THEN group_id END AS group_id, CASE WHEN dimension = 'response' THEN sample_id END AS sample_id,
        any_value(token) FILTER (dimension = 'token') AS token, sign(advantage)::TINYINT AS sign,
        log_ratio IS NOT NULL AS known, count(*)::UINTEGER AS n, sum(tv::DOUBLE) AS mass, sum(weight) AS weight,
        sum(weight * grad_norm) AS weight_norm, sum(exp(logp::DOUBLE)) AS p, sum(entropy_old) AS entropy,
        count(entropy_old)::UINTEGER AS n_entropy, any_value(reward) AS reward, min(advantage) AS least_advantage,
        max(advantage) AS most_advantage
    FROM placed WHERE log_ratio IS NOT NULL OR dimension = 'response' GROUP BY ALL ORDER BY pair, dimension, sample_id, key, sign)
TO '$folder/quiet.parquet' (FORMAT parquet, COMPRESSION lz4_raw, ROW_GROUP_SIZE 8192);
