"""`/compare`: two analyses, two steps or two pairs of checkpoints in the same axes.

The address names either side's analysis and its view: `a=…&a_step=…&b=…&b_step=…`, and whatever else a view has.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from fastapi import APIRouter, Request, Response

from service.api.pages.html import formats, live, page, short, url
from service.api.pages.names import analysis_label
from service.api.pages.options import options
from service.api.state import Services, ServicesDep
from service.api.views import FIGURES, TABLES
from service.errors import FieldError, Invalid
from service.schemas.overview import CompareView
from service.schemas.view import View
from web import differences, words
from web.numbers import UNKNOWN, count, percent, signed

__all__ = ["router"]

router = APIRouter()

Row = dict[str, Any]
CHOICES = ("step", "anchor", "evaluated_at", "divergence")
MOST_ANALYSES = 200  # that a select offers
SHOWN = ("compare_definitions", "compare_cells", "compare_quantiles")
PANELS = {name: figure for name, figure in FIGURES.items() if name.startswith("compare_")}
DROPS = {"ppo": ("ppo_only_drops", "both_drop"), "dppo": ("dppo_only_drops", "both_drop")}


@router.get("/compare")
def compare_page(request: Request, services: ServicesDep) -> Response:
    """Definitions, cells, steps, planes and quantiles of two analyses; until both are chosen, the choice."""
    return page(request, "compare.html", m=_model(services, dict(request.query_params)))


@router.get("/compare/live")
def compare_live(request: Request, services: ServicesDep) -> Response:
    """The page's model."""
    return live(_model(services, dict(request.query_params)))


def _model(services: Services, query: dict[str, str]) -> Row:
    unknown = [name for name in query if name not in ("a", "b") and name[:2] not in ("a_", "b_")]
    if unknown:
        said = f"{unknown[0]}: what a side shows is called a_… or b_…"
        raise Invalid(said, [FieldError("not known", field=unknown[0])])
    views = {side: View.of(_view_of(query, side), set()) for side in "ab"}
    rows = {side: services.store.analyses.get(query[side]) for side in "ab" if query.get(side)}
    listed = _listed(services, list(rows.values()))
    model: Row = {
        "analyses": listed,
        "sides": [_choices(services, side, rows.get(side), views[side]) for side in "ab"],
        "chosen": len(rows) == 2,
        "no_analyses": not listed,
        "choose": bool(listed) and len(rows) < 2,
    }
    return {**model, **_compared(services, rows, views)} if model["chosen"] else model


def _view_of(query: dict[str, str], side: str) -> dict[str, str]:
    return {name[2:]: value for name, value in query.items() if name.startswith(f"{side}_")}


def _named(side: str, view: View) -> Row:
    """A view as the address has it for one side."""
    return {f"{side}_{name}": value for name, value in view.chosen.items()}


def _listed(services: Services, chosen: list[Row]) -> list[Row]:
    """What can be chosen: the newest analyses, and those that are chosen already."""
    rows = services.store.analyses.all()[:MOST_ANALYSES]
    known = {row["analysis"]: row for row in (*rows, *chosen)}
    return [{"analysis": name, "label": f"{row['run']}, {analysis_label(row)}"} for name, row in known.items()]


def _choices(services: Services, side: str, row: Row | None, view: View) -> Row:
    """One side of the form: what it shows, what it could show, and what of the address no control shows."""
    model: Row = {"side": side, "letter": side.upper(), "analysis": row["analysis"] if row else ""}
    if row is None:
        return {**model, "selects": [], "hidden": []}
    at = view.parameters(row)
    (known,) = services.store.lens.table("availability", at).to_pylist()
    found = options(services.store.analyses.steps(row["analysis"]), row, at, known)
    unsaid = {"step": "", "anchor": row["anchor"], "evaluated_at": row["evaluated_at"], "divergence": "binary_tv"}
    named = {name: value for name, value in view.chosen.items() if name not in CHOICES}
    return {
        **model,
        "selects": [
            {"name": f"{side}_{name}", "kind": name, "options": found[name], "unsaid": unsaid[name]} for name in CHOICES
        ],
        "hidden": [{"name": f"{side}_{name}", "value": value} for name, value in named.items()],
    }


def _compared(services: Services, rows: dict[str, Row], views: dict[str, View]) -> Row:
    """Everything that the page says once both sides are chosen."""
    a, b = rows["a"], rows["b"]
    both = CompareView.of({**views["a"].chosen, "b": b["analysis"], **_named("b", views["b"])}, set())
    lens, at = services.store.lens, both.parameters(a)
    of_a, of_b = TABLES["compare_definitions"].rows(lens, at).to_pylist()
    cells = TABLES["compare_cells"].rows(lens, at).to_pylist()
    cautions = differences.cautions(of_a, of_b)
    swapped = {"a": b["analysis"], **_named("a", views["b"]), "b": a["analysis"], **_named("b", views["a"])}
    return {
        **_places(a["analysis"], both),
        "swap": url("compare", query=swapped),
        "heads": [_head(side, rows[side], views[side], told, cells) for side, told in (("a", of_a), ("b", of_b))],
        "definitions": differences.definitions(of_a, of_b),
        "cautions": [{"message": message} for message in cautions],
        "has_cautions": bool(cautions),
        "cells": _cells(cells, "logged" if of_a["evaluated_at"] == of_b["evaluated_at"] == "logged" else "end"),
        "one_run": a["analysis"] == b["analysis"],
    }


def _places(analysis: str, view: CompareView) -> Row:
    """Where figures, and rows to take home, are."""
    place, query = ("api", "v1", "analyses", analysis), view.chosen
    model: Row = {}
    for name, figure in PANELS.items():
        model[f"figure.{name}"] = url(*place, "figures", name, query=query)
        model |= formats(name, *place, "tables", figure.table, query=query)
    for name in SHOWN:
        model |= formats(name, *place, "tables", name, query=query)
    return model


def _head(side: str, row: Row, view: View, told: Row, cells: list[Row]) -> Row:
    """What a side is of, and what the two methods do to its tokens."""
    n = sum(cell[f"n_{side}"] for cell in cells)
    dropped = {
        name: percent(sum(cell[f"n_{side}"] for cell in cells if cell["cell"] in members), n)
        for name, members in DROPS.items()
    }
    when = words.when(told["evaluated_at"])
    return {
        "letter": side.upper(),
        "run": row["run"],
        "run_href": url("runs", row["run"], query={"analysis": row["analysis"]}),
        "analysis": short(row["analysis"]),
        "href": url("analyses", row["analysis"], query=view.chosen),
        "where": "all steps" if view.step is None else f"step {view.step}",
        "pair": words.pair_arrow(told["anchor"], told["evaluated_at"]),
        "n": count(n) if n else UNKNOWN,
        "verb": "dropped" if not when else "would drop",
        "when": f" {when}" if when else "",
        "stale": row["stale"],
        "filling": row["n_finished"] < row["n_steps"],
        "finished": f"{row['n_finished']} of {row['n_steps']} steps are scored so far",
        **dropped,
    }


def _cells(rows: list[Row], evaluated_at: str) -> list[Row]:
    """Each cell of each sign on both sides; the difference is in points of percent."""
    whole: Counter[tuple[str, int]] = Counter()
    for row in rows:
        for side in "ab":
            whole[side, row["sign"]] += row[f"n_{side}"]
    return [
        {
            "sign": row["sign"],
            "cell": row["cell"],
            "name": words.cell_name(row["cell"], evaluated_at),
            **{f"n_{side}": count(row[f"n_{side}"]) for side in "ab"},
            **{f"near_{side}": count(row[f"n_near_{side}"]) for side in "ab"},
            **{f"share_{side}": percent(row[f"n_{side}"], whole[side, row["sign"]]) for side in "ab"},
            "difference": UNKNOWN if row["difference"] is None else signed(100 * row["difference"]),
        }
        for row in rows
    ]
