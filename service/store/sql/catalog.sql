-- The catalog: owned by the one service process. Migrations append; version 1 is this file.
CREATE TABLE meta (key VARCHAR PRIMARY KEY, value VARCHAR NOT NULL);
INSERT INTO meta VALUES ('schema_version', '1');

CREATE TABLE runs (
    run_id VARCHAR PRIMARY KEY, run VARCHAR NOT NULL UNIQUE, created_at TIMESTAMP NOT NULL, framework VARCHAR,
    temperature DOUBLE NOT NULL, top_p DOUBLE NOT NULL, top_k INTEGER NOT NULL, logprobs_mode VARCHAR,
    sampling VARCHAR NOT NULL, tokenizer VARCHAR, meta VARCHAR NOT NULL
);
CREATE TABLE checkpoints (
    checkpoint VARCHAR PRIMARY KEY, run_id VARCHAR NOT NULL, created_at TIMESTAMP NOT NULL, step UINTEGER NOT NULL,
    label VARCHAR, path VARCHAR NOT NULL, adapter VARCHAR, fingerprint VARCHAR NOT NULL,
    base_fingerprint VARCHAR NOT NULL, adapter_fingerprint VARCHAR, vocab_size UINTEGER NOT NULL,
    max_positions UINTEGER, warnings VARCHAR NOT NULL
);
CREATE TABLE uploads (
    upload VARCHAR PRIMARY KEY, run_id VARCHAR NOT NULL, created_at TIMESTAMP NOT NULL, filename VARCHAR,
    bytes UBIGINT NOT NULL, sha256 VARCHAR NOT NULL, format VARCHAR NOT NULL, rollouts UINTEGER NOT NULL,
    tokens UBIGINT NOT NULL, skipped UINTEGER NOT NULL, warnings VARCHAR NOT NULL
);
-- What an upload brought for one step. Its rows are visible exactly while this row exists.
CREATE TABLE upload_steps (
    upload VARCHAR NOT NULL, run_id VARCHAR NOT NULL, step UINTEGER NOT NULL, content VARCHAR NOT NULL,
    rollouts UINTEGER NOT NULL, tokens UBIGINT NOT NULL, counted_tokens UBIGINT NOT NULL, pieces VARCHAR[] NOT NULL,
    rewards UINTEGER, reward_sum DOUBLE
);
CREATE TABLE scorings (
    scoring VARCHAR PRIMARY KEY, run_id VARCHAR NOT NULL, step UINTEGER NOT NULL, created_at TIMESTAMP NOT NULL,
    inputs VARCHAR NOT NULL, tokens UBIGINT, counts VARCHAR, device VARCHAR, finished_at TIMESTAMP
);
CREATE TABLE analyses (
    analysis VARCHAR PRIMARY KEY, run_id VARCHAR NOT NULL, created_at TIMESTAMP NOT NULL, source VARCHAR NOT NULL,
    anchor VARCHAR NOT NULL, evaluated_at VARCHAR NOT NULL, eps_low DOUBLE NOT NULL, eps_high DOUBLE NOT NULL,
    dual_clip DOUBLE, delta_tv_low DOUBLE NOT NULL, delta_tv_high DOUBLE NOT NULL, delta_kl_low DOUBLE NOT NULL,
    delta_kl_high DOUBLE NOT NULL, weight_cap DOUBLE, top_k UINTEGER NOT NULL, topk_mode VARCHAR NOT NULL,
    dtype VARCHAR NOT NULL, stale BOOLEAN NOT NULL, warnings VARCHAR NOT NULL, skipped_steps VARCHAR NOT NULL
);
CREATE TABLE analysis_scorings (
    analysis VARCHAR NOT NULL, step UINTEGER NOT NULL, scoring VARCHAR NOT NULL,
    old_checkpoint VARCHAR, new_checkpoint VARCHAR, span INTEGER, summarised BOOLEAN NOT NULL
);
CREATE TABLE jobs (
    job VARCHAR PRIMARY KEY, kind VARCHAR NOT NULL, run_id VARCHAR, state VARCHAR NOT NULL,
    created_at TIMESTAMP NOT NULL, finished_at TIMESTAMP, request VARCHAR NOT NULL, tokens_done UBIGINT NOT NULL,
    tokens_total UBIGINT, warnings VARCHAR NOT NULL, error VARCHAR, result VARCHAR
);
-- Files that were deleted: unlinked later, so that open readers finish.
CREATE TABLE trash (path VARCHAR NOT NULL, since TIMESTAMP NOT NULL);
-- One row per analysis, step and sign of the advantage; written once, when a step of an analysis is published.
CREATE TABLE step_summary (
    analysis VARCHAR NOT NULL, step UINTEGER NOT NULL, sign TINYINT, n UBIGINT NOT NULL, n_null UBIGINT NOT NULL,
    mean_abs_dp DOUBLE, min_dp DOUBLE, max_dp DOUBLE,
    mean_log_ratio DOUBLE, q01_log_ratio DOUBLE, q50_log_ratio DOUBLE, q99_log_ratio DOUBLE,
    mean_tv_binary DOUBLE, q01_tv_binary DOUBLE, q50_tv_binary DOUBLE, q99_tv_binary DOUBLE,
    mean_entropy_old DOUBLE,
    n_drop_keep_ppo UBIGINT, n_drop_keep_dppo_binary_tv UBIGINT, n_drop_keep_dppo_binary_kl UBIGINT,
    n_drop_keep_dppo_topk_tv UBIGINT, n_drop_keep_dppo_topk_kl UBIGINT, n_drop_keep_dppo_exact_tv UBIGINT,
    n_drop_keep_dppo_exact_kl UBIGINT, n_near_threshold UBIGINT
);
-- One row per analysis and step; written with step_summary.
CREATE TABLE step_metrics (
    analysis VARCHAR NOT NULL, step UINTEGER NOT NULL, n UBIGINT NOT NULL, n_null UBIGINT NOT NULL,
    mean_abs_dp DOUBLE, q50_abs_dp DOUBLE, q90_abs_dp DOUBLE, q99_abs_dp DOUBLE, min_dp DOUBLE, max_dp DOUBLE,
    n_gradient UBIGINT NOT NULL, n_bad_update UBIGINT, n_near_bad_update UBIGINT,
    mean_tv_binary_mismatch DOUBLE, mean_abs_log_mismatch DOUBLE, mean_tv_binary_old DOUBLE,
    mean_entropy_old DOUBLE, mean_topk_mass_old DOUBLE
);
-- How far two scorings of OLD in different batch layouts lie apart, on a sample of a scoring's tokens.
CREATE TABLE noise_floor (
    scoring VARCHAR PRIMARY KEY, n UBIGINT NOT NULL,
    q50_abs_logp DOUBLE, q90_abs_logp DOUBLE, q99_abs_logp DOUBLE, max_abs_logp DOUBLE,
    q50_tv DOUBLE, q90_tv DOUBLE, q99_tv DOUBLE, max_tv DOUBLE,
    q50_kl DOUBLE, q90_kl DOUBLE, q99_kl DOUBLE, max_kl DOUBLE
);
-- What the worker measures once all steps of an analysis are scored.
CREATE TABLE method_agreement (
    analysis VARCHAR NOT NULL, method VARCHAR NOT NULL, other VARCHAR NOT NULL, n UBIGINT NOT NULL,
    n_both_keep UBIGINT NOT NULL, n_only_method_drops UBIGINT NOT NULL, n_only_other_drops UBIGINT NOT NULL,
    n_both_drop UBIGINT NOT NULL, agreement DOUBLE, kappa DOUBLE, drop_rate_negative DOUBLE,
    drop_rate_positive DOUBLE, reason VARCHAR
);
CREATE TABLE method_rates (
    analysis VARCHAR NOT NULL, step UINTEGER NOT NULL, method VARCHAR NOT NULL, sign TINYINT NOT NULL,
    n UBIGINT NOT NULL, n_drop UBIGINT NOT NULL
);
CREATE TABLE pipo (
    analysis VARCHAR NOT NULL, step UINTEGER NOT NULL, mean_reward DOUBLE, improvement DOUBLE, weight DOUBLE,
    reason VARCHAR
);
CREATE TABLE bounds (
    analysis VARCHAR NOT NULL, step UINTEGER NOT NULL, responses UBIGINT NOT NULL, left_out UBIGINT NOT NULL,
    horizon UBIGINT NOT NULL, mean_reward DOUBLE, reward_min DOUBLE, xi DOUBLE, first_order DOUBLE,
    correction DOUBLE, tv_source VARCHAR NOT NULL, tv_sum DOUBLE, tv_max DOUBLE, eq7 DOUBLE, eq8 DOUBLE,
    eq8_ceiling DOUBLE, eq8_vacuous BOOLEAN, mean_abs_log_mismatch DOUBLE
);
