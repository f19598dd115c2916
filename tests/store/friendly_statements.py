"""What analysts write, with its answer worked by hand from the rows of lens_fixture."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

FRIENDLY: dict[str, list[tuple[Any, ...]]] = {
    "select 1": [(1,)],
    "from tokens select count(*)": [(8,)],
    "select step, count(*) as n from tokens group by all order by all": [(1, 5), (2, 3)],
    # |log_ratio|: 0.0, 0.5, 0.5, 0.25, 0.25 and 1.0, 1.0
    "select step, avg(abs(log_ratio)) from tokens where analysis = 'a1' group by step order by 1": [(1, 0.3), (2, 1.0)],
    "select r.response_text, count(*) filter (t.advantage > 0) from tokens t join rollouts r using (step, sample_id) "
    "group by 1 order by 1": [("A dog", 0), ("Hm.", 3), ("The cat sat", 3)],
    "select sample_id from rollouts anti join (from tokens where log_ratio is null) t using (sample_id) order by 1": [
        ("x",),
        ("y",),
    ],
    "with big as (select * from tokens where tv_binary > 0.2), n as (select step, count(*) c from big group by step) "
    "select * from n order by step": [(1, 2), (2, 2)],
    # tv_binary in order: 0, 0.0625, 0.125, 0.25, 0.375, 0.5, 0.75
    "select quantile_cont(tv_binary, 0.5), median(tv_binary), max(tv_binary) from tokens": [(0.25, 0.25, 0.75)],
    "select quantile_cont(tv_binary, [0.0, 1.0]) from tokens": [([0.0, 0.75],)],
    "select percentile_disc(0.5) within group (order by tv_binary) from tokens": [(0.25,)],
    "select map_entries(histogram(sample_id)) from tokens": [
        ([{"key": "x", "value": 3}, {"key": "y", "value": 2}, {"key": "z", "value": 3}],)
    ],
    "select sample_id, position from tokens qualify row_number() over (partition by step order by tv_binary desc "
    "nulls last) = 1 order by all": [("y", 1), ("z", 1)],
    "select position, sum(log_ratio) over (partition by sample_id order by position rows between unbounded preceding "
    "and current row) from tokens where sample_id = 'x' order by position": [(0, 0.0), (1, 0.5), (2, 0.0)],
    "select position, lag(token, 1, '^') over w from tokens where sample_id = 'y' window w as (order by position) "
    "order by 1": [(0, "^"), (1, "A")],
    # ratios: e^0.5 = 1.65 > 1.2 with A > 0, e^-0.25 = 0.78 < 0.8 with A < 0, e^1 = 2.7 > 1.2 with A > 0
    "select sample_id, position from tokens, analyses where not keep_ppo(log_ratio, advantage, eps_low, eps_high) "
    "order by all": [("x", 1), ("y", 1), ("z", 1)],
    # divergence over 0.3, away from the anchor: y 1 and z 1; z 2 moves back
    "select sample_id, position from tokens where not keep_dppo(tv_binary, log_ratio, advantage, 0.3, 0.3) "
    "order by all": [("y", 1), ("z", 1)],
    "select half(n_tokens) from runs": [(4.0,)],
    "select unnest([1, 2, 3]) as i": [(1,), (2,), (3,)],
    "select i, j from range(2) a(i), generate_series(1, 2) b(j) order by all": [(0, 1), (0, 2), (1, 1), (1, 2)],
    "select s.step, coalesce(n, 0) from generate_series(1, 3) s(step) left join (select step, count(*) n from tokens "
    "group by step) using (step) order by 1": [(1, 5), (2, 3), (3, 0)],
    "with recursive f(i, n) as (select 1, 1 union all select i + 1, n * (i + 1) from f where i < 5) select max(n) "
    "from f": [(120,)],
    "select count(*) from (from tokens using sample 100 percent (bernoulli))": [(8,)],
    "select count(*) from (from tokens using sample reservoir(5 rows) repeatable (1))": [(5,)],
    "from checkpoints select step, label order by all desc nulls last": [(3, "end"), (2, None), (1, "start")],
    "select 'a' as k union select 'b' union all select 'a' order by k": [("a",), ("a",), ("b",)],
    "select 1 as a, 2 as b union all by name select 3 as b, 4 as a": [(1, 2), (4, 3)],
    "select step from tokens except select 1 intersect select 2 order by step": [(1,), (2,)],
    "select [x * 2 for x in [1, 2, 3] if x > 1]": [([4, 6],)],
    "select list_transform(list(position order by position), lambda p: p + 1) from tokens where sample_id = 'x'": [
        ([1, 2, 3],)
    ],
    "select p.a, p['b'], {'n': step}.n from (select {'a': 1, 'b': 'two'} p, step from tokens order by step limit 1)": [
        (1, "two", 1)
    ],
    "select regexp_extract(response_text, '(\\w+)$', 1), regexp_matches(response_text, '^The') from rollouts "
    "order by sample_id": [("sat", True), ("dog", False), ("", False)],
    "select string_agg(token, '' order by position) from tokens where sample_id = 'x'": [("The cat sat",)],
    "select created_at, created_at::date, date_trunc('month', created_at)::date, created_at + interval 1 day, "
    "extract(hour from created_at) from runs": [
        (
            datetime(2024, 5, 1, 12, tzinfo=UTC),
            date(2024, 5, 1),
            date(2024, 5, 1),
            datetime(2024, 5, 2, 12, tzinfo=UTC),
            12,
        )
    ],
    "select current_date > date '2024-05-01', now() > current_timestamp - interval 1 hour": [(True, True)],
    "select run, (select max(step) from checkpoints c where c.run = r.run) from runs r": [("run-1", 3)],
    "select run from runs r where exists (from rollouts o where o.run = r.run and reward > 0.9)": [("run-1",)],
    "select r.sample_id, t.best from rollouts r, lateral (select max(tv_binary) best from tokens t where "
    "t.sample_id = r.sample_id) t order by 1": [("x", 0.25), ("y", 0.5), ("z", 0.75)],
    "select s.step, a.scoring from (values (1.5), (2.5)) s(step) asof join analysis_scorings a on s.step >= a.step "
    "order by 1": [(1.5, "s1"), (2.5, "s2")],
    "select sample_id as s, count(*) as n from tokens group by s having n > 2 order by s": [("x", 3), ("z", 3)],
    "select n: count(*), m: max(step) from tokens": [(8, 2)],
    "select * exclude (run, label) replace (step + 1 as step) from checkpoints where label = 'end'": [("c3", 4)],
    "select min(columns('^n_')) from runs": [(2, 8)],
    "select json_extract_string(meta, '$.level')::int as level from rollouts order by level nulls last": [
        (3,),
        (5,),
        (None,),
    ],
    "select meta->>'level' from rollouts where sample_id = 'x'": [("3",)],
    "from (pivot (select step, sample_id, tv_binary from tokens) on step in (1, 2) using count(tv_binary) as c) "
    "order by sample_id": [("x", 3, 0), ("y", 2, 0), ("z", 0, 2)],
    "from (select step, n, mean_abs_dp from step_summary where sign = 1) unpivot (v for k in (n, mean_abs_dp)) "
    "select k, v::double order by k": [("mean_abs_dp", 0.125), ("n", 3.0)],
    "select grouping(step), step, count(*) from tokens group by rollup (step) order by all": [
        (0, 1, 5),
        (0, 2, 3),
        (1, None, 8),
    ],
    "select corr(i, 2 * i), regr_slope(3 * i, i), stddev_pop(i) from (values (1), (3)) t(i)": [(1.0, 3.0, 1.0)],
    "select case when step = 1 then 'first' else 'later' end as w, if(count(*) > 4, 'many', 'few') from tokens "
    "group by w order by w": [("first", "many"), ("later", "few")],
    "select column_name from (describe runs) limit 2": [("run",), ("created_at",)],
    "select column_name, count from (summarize select step from tokens)": [("step", 8)],
    "with x as materialized (select 42 as a) select a from x": [(42,)],
    "with runs as (select 'mine' as run) select run from runs": [("mine",)],
    'select "Run" from "RUNS" -- a comment; with a semicolon\n;': [("run-1",)],
    "select 'naïve — π ≈ 3' as s, length('日本')": [("naïve — π ≈ 3", 2)],
    "select * from tokens where false": [],
}
