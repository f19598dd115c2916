"""The SQL gate: which statement `POST /sql` may run.

One SELECT over the tables of the SQL contract. DuckDB's own parser writes the statement as a JSON tree; every node of
it, at any depth, must be of a kind listed here, so that a kind a later DuckDB adds is refused until someone reads up
on it. Statement types would not do: in DuckDB 2.0 `with x as (copy (select 1) to 'f') select 1` is one SELECT.

`check` parses what a stranger wrote, and a parser can be driven out of stack or memory. `service.store.sql_child`
therefore calls it inside its own process and limits; the API process calls `check_text` alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import duckdb

from service.errors import Invalid, StatementRefused
from service.store.sql_functions import FUNCTIONS, MACROS, TABLE_FUNCTIONS

__all__ = ["CONTRACT_TABLES", "MAX_SQL_BYTES", "check", "check_text"]

CONTRACT_TABLES = (
    *("runs", "checkpoints", "rollouts", "analyses", "analysis_scorings", "tokens", "step_summary"),
    *("noise_floor", "method_agreement", "method_rates", "bounds", "step_metrics", "run_steps", "pipo"),
)
MAX_SQL_BYTES = 100_000

_QUERIES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE"})
_TABLES = frozenset(
    {"BASE_TABLE", "EMPTY", "EXPRESSION_LIST", "JOIN", "PIVOT", "SHOW_REF", "SUBQUERY", "TABLE_FUNCTION"}
)
_PARTS = frozenset(
    {
        "DISTINCT_MODIFIER",
        "LIMIT_MODIFIER",
        "LIMIT_PERCENT_MODIFIER",
        "ORDER_MODIFIER",
        "ORDER_DEFAULT",
        "ASCENDING",
        "DESCENDING",
        # The types of a cast or a constant, as 1.5 writes them; AGGREGATE_STATE_TYPE_INFO is left out.
        "ARRAY_TYPE_INFO",
        "DECIMAL_TYPE_INFO",
        "ENUM_TYPE_INFO",
        "LIST_TYPE_INFO",
        "STRING_TYPE_INFO",
        "STRUCT_TYPE_INFO",
        "UNBOUND_TYPE_INFO",
    }
)
_EXPRESSIONS = frozenset(
    {
        "BETWEEN",
        "CASE",
        "CAST",
        "COLLATE",
        "COLUMN_REF",
        "COMPARISON",
        "CONJUNCTION",
        "CONSTANT",
        "FUNCTION",
        "LAMBDA",
        "OPERATOR",
        "POSITIONAL_REFERENCE",
        "STAR",
        "SUBQUERY",
        "TYPE",
        "WINDOW",
    }
)

_FUNCTIONS = FUNCTIONS | MACROS
_TOO_DEEP = "The statement is nested too deeply; flatten it, or write a long list of values as one list."

Scope = frozenset[str]  # names of the common table expressions that can be seen here, folded
Node = dict[str, Any]


def check_text(sql: str) -> None:
    """Refuse what no parser should see: too long, not Unicode, or with a NUL, where some readers would stop."""
    try:
        size = len(sql.encode())
    except UnicodeEncodeError as error:
        raise StatementRefused("The statement is not valid Unicode: it holds a lone surrogate.") from error
    if size > MAX_SQL_BYTES:
        raise StatementRefused(f"The statement has {size:,} bytes; at most {MAX_SQL_BYTES:,} are allowed.")
    if "\0" in sql:
        raise StatementRefused("The statement holds a NUL character; remove it.")


def check(sql: str, connection: duckdb.DuckDBPyConnection | None = None) -> None:
    """Return if `sql` is one SELECT that reads the contract's tables and nothing else.

    `connection` parses it and says which macros its default database publishes; None = a fresh in-memory DuckDB.
    Raises `StatementRefused`, and `Invalid` with the parser's message for a syntax error. Call it in a child process.
    """
    check_text(sql)
    if connection is None:
        with duckdb.connect(":memory:", config={"threads": "1"}) as fresh:
            check(sql, fresh)
        return
    statements = _parse(sql, connection)
    if len(statements) != 1:
        found = f"{len(statements)} statements" if statements else "an empty statement"
        raise StatementRefused(f"This is {found}; exactly one SELECT is allowed.")
    todo: list[tuple[Any, Scope]] = [(statements, frozenset())]  # a list, not recursion: the depth is the user's
    while todo:
        value, scope = todo.pop()
        if isinstance(value, list):
            todo.extend((item, scope) for item in value)
        elif isinstance(value, dict):
            _check_node(value, scope, connection)
            todo.extend(_children(value, scope))


def _parse(sql: str, connection: duckdb.DuckDBPyConnection) -> list[Node]:
    [(text,)] = connection.execute("SELECT json_serialize_sql(?)", [sql]).fetchall()
    try:
        tree = json.loads(text)
    except RecursionError as error:
        raise StatementRefused(_TOO_DEEP) from error
    if not tree["error"]:
        return list(tree["statements"])
    message = tree["error_message"]
    if any(sign in message for sign in ("expression depth", "memory exhausted", "Allocation failure")):
        raise StatementRefused(_TOO_DEEP)  # the parser's own limits
    if "Only SELECT" in message:
        raise StatementRefused(
            "Only one SELECT statement is allowed (or FROM, WITH, VALUES, TABLE, DESCRIBE, SUMMARIZE; "
            "PIVOT with its values listed in IN)."
        )
    raise Invalid(f"The statement cannot be parsed: {message}")


def _check_node(node: Node, scope: Scope, connection: duckdb.DuckDBPyConnection) -> None:
    kind = node.get("type")
    if "class" in node:
        _check_expression(node, connection)
    elif kind == "BASE_TABLE":
        _check_table(node, scope)
    elif kind == "TABLE_FUNCTION":
        _check_table_function(node["function"])
    elif kind == "SHOW_REF":
        _check_show(node)
    elif isinstance(kind, str) and kind not in _QUERIES | _TABLES | _PARTS:
        what = kind.removesuffix("_NODE").removesuffix("_QUERY").replace("_", " ")
        raise StatementRefused(f"{what} is not allowed: a statement may hold SELECT and set operations only.")


def _check_expression(node: Node, connection: duckdb.DuckDBPyConnection) -> None:
    if node["class"] == "PARAMETER":
        raise StatementRefused("Parameters ($1, ?) are not supported; write the value into the statement.")
    if node["class"] not in _EXPRESSIONS:
        raise StatementRefused(f"An expression of the kind {node['class']} is not allowed.")
    if node.get("export_state"):
        raise StatementRefused("EXPORT_STATE is not allowed; aggregate to a value.")
    if "function_name" in node:
        name = _fold(node["function_name"])
        if name not in _FUNCTIONS and not _is_macro(name, connection):
            raise StatementRefused(
                f"The function {_quote(name)} is not allowed; DuckDB's functions on numbers, text, dates, lists, "
                "structs and JSON, its aggregates and window functions, and the macros of lens.duckdb are."
            )


def _is_macro(name: str, connection: duckdb.DuckDBPyConnection) -> bool:
    macros = "FROM duckdb_functions() WHERE database_name = current_database() AND function_type = 'macro'"
    return bool(connection.execute(f"{macros} AND lower(function_name) = ?", [name]).fetchall())


def _check_table(node: Node, scope: Scope) -> None:
    name = node["table_name"]
    path = node.get("qualified_name", {}).get("path", [name])  # 2.0 writes the whole path, 1.5 its two parents
    if path != [name] or node.get("schema_name") or node.get("catalog_name"):
        parents = [node.get("catalog_name"), node.get("schema_name"), name]
        full = ".".join(part for part in (path if len(path) > 1 else parents) if part)
        raise StatementRefused(f"The qualified name {_quote(full)} is not allowed; write a table's name alone.")
    if node.get("at_clause"):
        raise StatementRefused("AT (VERSION or TIMESTAMP) is not allowed.")
    if _fold(name) not in CONTRACT_TABLES and _fold(name) not in scope:
        raise StatementRefused(
            f"The table {_quote(name)} is not allowed; {', '.join(CONTRACT_TABLES)} are, "
            "and the statement's own common table expressions where they can be seen."
        )


def _check_table_function(function: Node) -> None:
    name = function.get("function_name", "")
    if _fold(name) not in TABLE_FUNCTIONS:
        allowed = ", ".join(sorted(TABLE_FUNCTIONS))
        raise StatementRefused(f"The table function {_quote(name)} is not allowed; {allowed} are.")


def _check_show(node: Node) -> None:
    """DESCRIBE and SUMMARIZE hold the query they describe, which is walked; SHOW TABLES names nothing."""
    if node.get("show_type") not in ("DESCRIBE", "SUMMARY") or not node.get("query") or node.get("table_name"):
        raise StatementRefused("SHOW is not allowed; DESCRIBE and SUMMARIZE of a contract table or a SELECT are.")


def _children(node: Node, scope: Scope) -> Iterator[tuple[Any, Scope]]:
    """What a node holds, each with the common table expressions that DuckDB would see there.

    A body sees those before it, and itself only in the recursive part: `with duckdb_settings as (from
    duckdb_settings)` reads the catalog's table.
    """
    inner = scope
    for entry in (node.get("cte_map") or {}).get("map", ()):
        yield entry["value"], inner
        inner |= {_fold(entry["key"])}
    recursive = node.get("type") == "RECURSIVE_CTE_NODE"
    for key, value in node.items():
        if key != "cte_map":
            yield value, inner | {_fold(node["cte_name"])} if recursive and key == "right" else inner


def _fold(name: str) -> str:
    """The name as DuckDB compares it: without case, in ASCII only (str.lower would make the Kelvin sign a k)."""
    return "".join(letter.lower() if letter.isascii() else letter for letter in name)


def _quote(name: str) -> str:
    return f'"{name}"' if len(name) <= 80 else f'"{name[:80]}…"'
