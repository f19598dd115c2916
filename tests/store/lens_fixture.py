"""A small data directory with a published lens.duckdb, as the service would leave it."""

from __future__ import annotations

from pathlib import Path

import duckdb

SCHEMA = """
    create table runs (run varchar, created_at timestamptz, temperature double, n_steps uinteger, n_tokens ubigint);
    create table checkpoints (checkpoint varchar, run varchar, step uinteger, label varchar);
    create table analyses (analysis varchar, run varchar, anchor varchar, eps_low double, eps_high double);
    create table analysis_scorings (analysis varchar, step uinteger, scoring varchar);
    create table step_summary (analysis varchar, step uinteger, sign tinyint, n ubigint, mean_abs_dp double);
    insert into runs values ('run-1', '2024-05-01 12:00:00+00', 1.0, 2, 8);
    insert into checkpoints values ('c1', 'run-1', 1, 'start'), ('c2', 'run-1', 2, null), ('c3', 'run-1', 3, 'end');
    insert into analyses values ('a1', 'run-1', 'rollout', 0.2, 0.2);
    insert into analysis_scorings values ('a1', 1, 's1'), ('a1', 2, 's2');
    insert into step_summary values ('a1', 1, 1, 3, 0.125), ('a1', 1, -1, 2, 0.25), ('a1', 2, null, 3, null);
    create macro keep_ppo(log_ratio, advantage, eps_low, eps_high) as not (
        (advantage > 0 and exp(log_ratio) > 1 + eps_high) or (advantage < 0 and exp(log_ratio) < 1 - eps_low));
    create macro keep_dppo(divergence, log_ratio, advantage, delta_low, delta_high) as not (
        (advantage > 0 and log_ratio > 0 and divergence > delta_high)
        or (advantage < 0 and log_ratio < 0 and divergence > delta_low));
    create macro half(x) as x / 2;
    create view rollouts as from read_parquet(
        coalesce(getvariable('dppo_data'), '{data}') || '/rollouts/*/*/*.parquet', hive_partitioning = false);
    create view tokens as select analysis, s.* exclude (scoring)
        from analysis_scorings join read_parquet(coalesce(getvariable('dppo_data'), '{data}') || '/tokens/*/*.parquet',
            hive_partitioning = true, hive_types_autocast = false) s using (step, scoring);
"""

ROLLOUTS = """
    select * replace (reward::double as reward) from (values
        ('run-1', 1, 'g1', 'x', 1.0, 3, 'The cat sat', '{"level": 3}'),
        ('run-1', 1, 'g1', 'y', 0.0, 2, 'A dog', '{"level": 5}'),
        ('run-1', 2, 'g2', 'z', 0.5, 3, 'Hm.', null)
    ) t(run, step, group_id, sample_id, reward, response_tokens, response_text, meta)
"""

TOKENS = """
    select * replace (advantage::double as advantage, log_ratio::double as log_ratio, tv_binary::double as tv_binary)
    from (values
        (1, 'x', 0, 'The', 1.0, 0.0, 0.0), (1, 'x', 1, ' cat', 1.0, 0.5, 0.25), (1, 'x', 2, ' sat', 1.0, -0.5, 0.125),
        (1, 'y', 0, 'A', -1.0, 0.25, 0.0625), (1, 'y', 1, ' dog', -1.0, -0.25, 0.5),
        (2, 'z', 0, 'Hm', 0.5, null, null), (2, 'z', 1, '.', 0.5, 1.0, 0.75), (2, 'z', 2, null, 0.5, -1.0, 0.375)
    ) t(step, sample_id, position, token, advantage, log_ratio, tv_binary) where step = {step}
"""


def make_data_dir(data: Path) -> Path:
    """Write the segments and lens.duckdb below `data`; return the latter."""

    def quoted(path: Path) -> str:
        return str(path).replace("'", "''")

    lens = data / "lens.duckdb"
    with duckdb.connect() as connection:
        for folder, query in {
            "rollouts/r1/1": ROLLOUTS,
            "tokens/scoring=s1": TOKENS.replace("{step}", "1"),
            "tokens/scoring=s2": TOKENS.replace("{step}", "2"),
        }.items():
            (data / folder).mkdir(parents=True)
            connection.execute(f"copy ({query}) to '{quoted(data / folder)}/part.parquet'")
        connection.execute(f"attach '{quoted(lens)}' as lens (storage_version 'v1.0.0')")
        connection.execute("use lens")
        connection.execute(SCHEMA.replace("{data}", quoted(data)))
        connection.execute("use memory")
        connection.execute("detach lens")
    return lens
