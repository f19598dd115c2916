"""The intervals of the Disagreement page as strings: a bootstrap over prompts, or why there is none."""

from __future__ import annotations

from typing import Any

from service.api.pages.cells import SLUGS
from web import words
from web.numbers import count, number

__all__ = ["intervals"]

Row = dict[str, Any]
FEWEST = 10  # groups below which a bootstrap over them says nothing
MEASURES = {"share": "share", "mass": "mass_moved", "weight": "gradient_weight", "norm": "gradient_weight_norm"}


def intervals(rows: list[Row] | None, at: Row) -> Row:
    """The intervals as strings by key `ci.<where>.<measure>`; None: they are being computed."""
    slots = words.cell_slots(at["first"], at["second"]) | {"all": "all"}
    heads = {f"{at['first']}_drops": "first", f"{at['second']}_drops": "second", "disagree": "disputed"}
    places = [f"{slug}.{cell}.{measure}" for slug in SLUGS.values() for cell in slots.values() for measure in MEASURES]
    model: Row = {f"ci.{place}": "" for place in (*(f"head.{name}" for name in heads.values()), *places)}
    for row in rows or []:
        if row["n_groups"] < FEWEST:
            continue
        if row["sign"] is None and row["quantity"] in heads:
            model[f"ci.head.{heads[row['quantity']]}"] = f" {_interval(row, 'share')}"
        elif row["sign"] is not None and row["quantity"] in slots:
            for measure, column in MEASURES.items():
                if (row["quantity"], measure) != ("all", "share"):
                    key = f"ci.{SLUGS[row['sign']]}.{slots[row['quantity']]}.{measure}"
                    model[key] = _interval(row, column)
    return {**model, "ci.says": _says(rows)}


def _interval(row: Row, column: str) -> str:
    scale = 100.0 if column == "share" else 1.0
    low, high = row[f"{column}_low"], row[f"{column}_high"]
    return "" if low is None or high is None else f"[{number(scale * low)}, {number(scale * high)}]"


def _says(rows: list[Row] | None) -> str:
    if rows is None:
        return "95 % intervals: computing …"
    groups = {None: 0} | {row["sign"]: row["n_groups"] for row in rows}
    if groups[None] < FEWEST:
        return (
            f"No intervals: tokens of a response are dependent, so a bootstrap resamples prompts, and only "
            f"{count(groups[None])} with a gradient are here; from fewer than {FEWEST} an interval means nothing."
        )
    few = [
        f" Only {count(n)} have one with {words.SIGNS[sign]}: no interval there."
        for sign, n in groups.items()
        if sign is not None and n < FEWEST
    ]
    return (
        f"In brackets: 95 % percentile intervals, from 1,000 bootstrap samples of the {count(groups[None])} prompts "
        f"that have a token with a gradient.{''.join(few)}"
    )
