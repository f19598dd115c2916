"""The SQL gate: every hostile statement is refused, what analysts write passes, and the answer says what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from service.errors import Invalid, StatementRefused
from service.store.gate import CONTRACT_TABLES, MAX_SQL_BYTES, check, check_text
from service.store.sql_functions import FUNCTIONS, MACROS, TABLE_FUNCTIONS
from tests.store.hostile_statements import Hostile, written

HOSTILE = [statement for statement in written() if statement.refused]


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(":memory:", config={"threads": "1"}) as connection:
        yield connection


@pytest.mark.parametrize("statement", HOSTILE, ids=lambda statement: statement.reason)
def test_a_hostile_statement_is_refused(
    statement: Hostile, connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    with pytest.raises((StatementRefused, Invalid)) as refusal:
        check(statement.at(out=tmp_path, data=tmp_path), connection)
    assert 400 <= refusal.value.status < 500
    assert list(tmp_path.iterdir()) == []


def test_the_list_of_hostile_statements_was_read() -> None:
    assert len(HOSTILE) > 150
    assert all(statement.sql for statement in HOSTILE)


@pytest.mark.parametrize(
    "sql",
    [
        "select 1",
        "select 1;",
        "FROM tokens",
        "table tokens",
        'select * from "Tokens" as "t"',
        "values (1), (2)",
        "describe tokens",
        "summarize select step from tokens",
        "with runs as (select 1 as a) select a from RUNS",
        'with "my part" as (from tokens) from "MY PART"',
        "with a as (select 1), b as (from a) from b",
        "with a as (select 1) from (with b as (from a) from b)",
        "with a as (select 1) select (select count(*) from a), [x for x in (select list(1) from a)] order by (from a)",
        "with a as (select 1) (from a union all from a)",
        "with recursive r as (select 1 as i union all select i + 1 from r where i < 5) from r",
        "with recursive a as (select 1), r as (from a union select 2 from r, a) from r",
        "select * from range(3), generate_series(1, 2), unnest([1, 2])",
        "select main.lower('A'), system.main.upper('a'), ('a').upper(), MAX(step) from tokens",
        "select keep_ppo(log_ratio, advantage, 0.2, 0.2), lens.main.keep_dppo(1, 2, 3, 4, 5) from tokens",
    ],
)
def test_one_select_over_the_contract_passes(sql: str, connection: duckdb.DuckDBPyConnection) -> None:
    check(sql, connection)


def test_every_contract_table_passes() -> None:
    assert CONTRACT_TABLES == (
        "runs",
        "checkpoints",
        "rollouts",
        "analyses",
        "analysis_scorings",
        "tokens",
        "step_summary",
        "noise_floor",
        "method_agreement",
        "method_rates",
        "bounds",
        "step_metrics",
        "run_steps",
        "pipo",
    )
    for table in CONTRACT_TABLES:
        check(f"from {table}")


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("from secrets_of_others", ['"secrets_of_others"', "runs, checkpoints, rollouts", "common table expressions"]),
        ("from memory.main.tokens", ['"memory.main.tokens"', "name alone"]),
        ("from glob('/*')", ['"glob"', "generate_series, range, unnest"]),
        ("select getenv('HOME')", ['"getenv"', "macros of lens.duckdb"]),
        ("insert into runs values (1)", ["Only one SELECT"]),
        ("select 1; select 2", ["2 statements", "exactly one SELECT"]),
        ("", ["empty statement", "exactly one SELECT"]),
        ("from to\u212aens", ['"to\u212aens"']),  # the Kelvin sign; Unicode folds it to k, DuckDB does not
        ("select 1\0; drop table runs", ["NUL character"]),
        ("show tables", ["SHOW", "DESCRIBE"]),
        ("select $1", ["Parameters"]),
        ("select sum(step) export_state from tokens", ["EXPORT_STATE"]),
        ("select " + "not " * 9_000 + "true", ["nested too deeply"]),
        ("from " + "x" * 9_000, ['"' + "x" * 80 + '…"']),
    ],
)
def test_a_refusal_names_what_is_wrong_and_what_is_allowed(sql: str, words: list[str]) -> None:
    with pytest.raises(StatementRefused) as refusal:
        check(sql)
    assert [word for word in words if word not in refusal.value.detail] == []


@pytest.mark.skipif(duckdb.__version__.startswith("1."), reason="the parser of 1.x refuses it itself")
def test_a_query_node_outside_the_list_is_named() -> None:
    with pytest.raises(StatementRefused, match=r"COPY is not allowed: .* SELECT and set operations only"):
        check("select 1 from (with x as (copy (select 1) to 'f') select 1)")


def test_a_syntax_error_says_where() -> None:
    with pytest.raises(Invalid, match='near "frm"'):
        check("select step from tokens frm frm")


def test_a_statement_may_be_as_long_as_the_limit() -> None:
    longest = "select '" + "x" * (MAX_SQL_BYTES - 9) + "'"
    assert len(longest) == MAX_SQL_BYTES == 100_000
    check(longest)
    with pytest.raises(StatementRefused, match="100,001 bytes; at most 100,000"):
        check_text(longest + " ")


def test_every_macro_that_the_database_publishes_may_be_called(connection: duckdb.DuckDBPyConnection) -> None:
    assert {"keep_ppo", "keep_dppo"} == MACROS
    with pytest.raises(StatementRefused, match="new_method"):
        check("select new_method(1)", connection)
    connection.execute("create macro new_method(a) as a + 1")
    check("select New_Method(1)", connection)
    connection.execute("create macro new_table(a) as table select a")
    for call in ("from new_table(1)", "select new_table(1)"):
        with pytest.raises(StatementRefused, match="new_table"):
            check(call, connection)


def test_no_function_outside_the_list_passes(connection: duckdb.DuckDBPyConnection) -> None:
    """What DuckDB's catalog holds beside the list is refused by name; of a large family, one stands for all."""
    rows = connection.execute("select distinct function_type, lower(function_name) from duckdb_functions()").fetchall()
    tables = {name for kind, name in rows if kind.startswith("table")}
    scalars = {name for kind, name in rows if not kind.startswith("table") and kind != "pragma"} - FUNCTIONS
    families = ("__internal", "collate_", "icu_collate_", "has_", "pg_", "st_", "variant_", "new_")
    scalars = {name for name in scalars if not name.startswith(families)} | {"__internal_decompress_string", "pg_sleep"}
    assert tables >= TABLE_FUNCTIONS | {"read_csv", "query", "glob"}
    assert scalars >= {"current_setting", "getvariable", "json_serialize_plan", "nextval", "write_log", "finalize"}
    calls = [f'from "{name}"(1)' for name in tables - TABLE_FUNCTIONS] + [f'select "{name}"(1)' for name in scalars]
    for call in calls:
        with pytest.raises(StatementRefused, match=r"function .* is not allowed"):
            check(call, connection)


def test_no_table_outside_the_contract_passes(connection: duckdb.DuckDBPyConnection) -> None:
    views = connection.execute("select view_name from duckdb_views() where internal").fetchall()
    assert len(views) > 20
    for (name,) in views:
        with pytest.raises(StatementRefused, match="is not allowed"):
            check(f'from "{name}"', connection)


def test_no_listed_function_has_side_effects(connection: duckdb.DuckDBPyConnection) -> None:
    """DuckDB marks what draws a random number VOLATILE, and with it everything that changes something."""
    volatile = "select distinct function_name from duckdb_functions() where stability = 'VOLATILE'"
    names = {name for (name,) in connection.execute(volatile).fetchall()}
    assert names >= {"random", "nextval", "write_log"}
    assert names & FUNCTIONS == {"random", "uuid", "gen_random_uuid", "uuidv4", "uuidv7"}
