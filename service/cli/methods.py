"""`dppo methods`: the registry of this installation, and what each method would drop in an analysis."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from rich.table import Table

from dppo_core.methods.catalog import METHODS
from service.cli.output import Output, fail, session

__all__ = ["methods_command"]


def methods_command(output: Output, name: str | None, analysis: str | None, server: str) -> None:
    """List all methods; or show one; or, with an analysis, each method's drop rates in it."""
    if name is not None and name not in METHODS:
        near = get_close_matches(name, METHODS, n=3)
        fail(output, f"there is no method {name!r}" + (f"; did you mean {' or '.join(near)}?" if near else ""))
    if analysis is not None:
        with session(output, server) as client:
            rows = client.table(analysis, "method_agreement").to_pylist()
        rows = [row for row in rows if row["method"] == row["other"] and name in (None, row["method"])]
        output.result(rows, _rates(rows))
    elif name is not None:
        document = METHODS[name].document()
        output.result(document, _one(document))
    else:
        documents = [method.document() for method in METHODS.values()]
        output.result(documents, _all(documents))


def _all(documents: list[dict[str, Any]]) -> Table:
    table = Table("method", "status", "decides over", "source", "frameworks", box=None, pad_edge=False)
    for one in documents:
        table.add_row(one["method"], one["status"], one["level"], one["source"], ", ".join(one["variants"]))
    return table


def _one(one: dict[str, Any]) -> str:
    lines = [f"{one['method']}: {one['title']}", "", one["rule"], ""]
    lines += [
        f"source      {one['source']} ({one['status']})",
        f"decides     over each {one['level']}",
        f"needs       {', '.join(one['needs'])}",
        f"parameters  {_assignments(one['parameters'])}",
    ]
    lines += [f"  {framework:<14} {_assignments(chosen)}" for framework, chosen in one["variants"].items()]
    return "\n".join(lines)


def _assignments(parameters: dict[str, Any]) -> str:
    return ", ".join(f"{key}={'none' if value is None else value}" for key, value in parameters.items()) or "–"


def _rates(rows: list[dict[str, Any]]) -> Table:
    table = Table("method", box=None, pad_edge=False)
    for heading in ("tokens", "drops A > 0", "drops A < 0"):
        table.add_column(heading, justify="right")
    table.add_column("not available because")
    for row in rows:
        rates = [row[f"drop_rate_{sign}"] for sign in ("positive", "negative")]
        shown = ["–" if rate is None else f"{100 * rate:.2f} %" for rate in rates]
        table.add_row(row["method"], f"{row['n']:,}" if row["reason"] is None else "–", *shown, row["reason"] or "")
    return table
