"""The four cells by sign of A, as rows of a table: sums of what the query `cells` counted, and their words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from web import words
from web.numbers import UNKNOWN, count, number, percent

__all__ = ["SLUGS", "by_step", "cell_table", "in_slots"]

Row = dict[str, Any]
SUMS = ("n", "mass_moved", "gradient_weight", "gradient_weight_norm", "n_near_ppo", "n_near_dppo")
FIRST_DROPS = ("ppo_only_drops", "both_drop")
SECOND_DROPS = ("dppo_only_drops", "both_drop")
DISPUTED = ("ppo_only_drops", "dppo_only_drops")
GROUPS = (("first", FIRST_DROPS), ("second", SECOND_DROPS), ("disputed", DISPUTED))
SLUGS = {1: "positive", -1: "negative"}


def in_slots(rows: list[Row], methods: tuple[str, str]) -> list[Row]:
    """Rows whose `cell` is a place of `words.CELLS`, whichever two methods are compared.

    Near a threshold is said of PPO and DPPO alone, whose thresholds are the view's.
    """
    slots = words.cell_slots(*methods)
    others = {f"n_near_{name}": None for name in ("ppo", "dppo") if name not in methods}
    return [{**row, **others, "cell": slots.get(row["cell"], row["cell"])} for row in rows]


def cell_table(cells: list[Row], evaluated_at: str, titles: tuple[str, str]) -> Row:
    """Every number of the table by key `<sign>.<cell>.<measure>`, and the sentence above it. `cells`: in slots."""
    rows = [row for row in cells if row["step"] is None]
    model: Row = {}
    for sign, slug in SLUGS.items():
        of_sign = [row for row in rows if row["sign"] == sign and row["cell"] in words.CELLS]
        whole = _total(of_sign)
        for cell in words.CELLS:
            part = _total(row for row in of_sign if row["cell"] == cell)
            model |= _measures(f"{slug}.{cell}", part, whole["n"])
        model |= _measures(f"{slug}.all", whole, whole["n"])
    model |= _measures("zero", _total(row for row in rows if row["cell"] == "no_gradient"), None)
    model |= _measures("unknown", _total(row for row in rows if row["cell"] == "unknown"), None)
    for cell in (*words.CELLS, "unknown"):
        model[f"name.{cell}"] = words.cell_name(cell, evaluated_at, titles)
    return {**model, **_headline(rows, evaluated_at)}


def _headline(rows: list[Row], evaluated_at: str) -> Row:
    """Of so many tokens with a gradient, how many each method drops, and on how many they disagree."""
    counted = [row for row in rows if row["cell"] in words.CELLS and row["sign"]]
    whole, seen = _count(counted), _count(rows)
    done = evaluated_at == "logged"
    point = words.when(evaluated_at)
    numbers: Row = {
        "n": count(whole),
        "verb": "dropped" if done else "would drop",
        "when": f" {point}" if point else "",
    }
    for name, members in GROUPS:
        part = _count(row for row in counted if row["cell"] in members)
        numbers |= {name: count(part), f"{name}_share": percent(part, whole)}
    return {
        **{f"head.{name}": value for name, value in numbers.items()},
        "has_cells": whole > 0,
        "has_tokens": seen > 0,
        "no_tokens": seen == 0,
        "no_cells": seen > 0 and whole == 0,
        "unknown_count": count(_count(row for row in rows if row["cell"] == "unknown")),
    }


def by_step(cells: list[Row], steps: list[Row]) -> list[Row]:
    """Drop counts and rates of each step; a step that is not finished has dashes. `cells`: in slots."""
    rows = []
    for step in steps:
        counted = [row for row in cells if row["step"] == step["step"] and row["cell"] in words.CELLS and row["sign"]]
        whole = _count(counted) if counted else None
        parts = {
            name: _count(row for row in counted if row["cell"] in members) if counted else None
            for name, members in GROUPS
        }
        near = {name: _total(counted)[f"n_{name}"] for name in ("near_ppo", "near_dppo")}
        rows.append(
            {
                "number": step["step"],
                "step": str(step["step"]),
                "n": count(whole),
                "span": "" if (step["span"] or 1) == 1 else f"spans {step['span']} steps",
                "linked": step["finished"],
                "unlinked": not step["finished"],
                **{name: count(part) for name, part in (parts | near).items()},
                **{f"{name}_share": percent(part, whole) for name, part in parts.items()},
            }
        )
    return rows


def _count(rows: Iterable[Row]) -> int:
    return sum(row["n"] for row in rows)


def _total(rows: Iterable[Row]) -> Row:
    """Sums over rows; a sum of nothing is not known, a count of nothing is 0."""
    listed = list(rows)
    sums: Row = {}
    for name in SUMS:
        known = [row[name] for row in listed if row[name] is not None]
        sums[name] = sum(known) if known or name == "n" else None
    return sums


def _measures(key: str, part: Row, whole: int | None) -> Row:
    share = part["n"] / whole if whole else 0.0
    return {
        f"{key}.n": count(part["n"]),
        f"{key}.share": percent(part["n"], whole),
        f"{key}.bar": round(share, 4),
        f"{key}.mass": number(part["mass_moved"]),
        f"{key}.weight": number(part["gradient_weight"]),
        f"{key}.norm": number(part["gradient_weight_norm"]),
        f"{key}.near_ppo": count(part["n_near_ppo"]) if part["n"] else UNKNOWN,
        f"{key}.near_dppo": count(part["n_near_dppo"]) if part["n"] else UNKNOWN,
    }
