"""`/analyses/{id}/theory`: Theorem 3.1 and its lower bounds, by step, and what they do and do not say."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from service.api.pages.frame import downloads, frame
from service.api.pages.html import live, page
from service.api.state import Services, ServicesDep
from service.schemas.view import View
from web.figures import theory
from web.numbers import count, number, signed

__all__ = ["router"]

router = APIRouter()

Row = dict[str, Any]
FIGURES = tuple(f"theory_{name}" for name in theory.FIGURES)
SOURCES = {"exact": "exact TV", "sampled": "the largest TV that the sampled log-probs allow"}


@router.get("/analyses/{analysis}/theory")
def theory_page(request: Request, analysis: str, services: ServicesDep) -> Response:
    """L′, Δ, Eq. 7 and Eq. 8 of every step, and vacuity in words."""
    return page(request, "theory.html", m=_model(services, analysis, View.of(request.query_params, set())))


@router.get("/analyses/{analysis}/theory/live")
def theory_live(request: Request, analysis: str, services: ServicesDep) -> Response:
    """The page's model, for controls and for steps that land while the page is open."""
    return live(_model(services, analysis, View.of(request.query_params, set())))


def _model(services: Services, analysis: str, view: View) -> Row:
    found = frame(services, analysis, view, "theory")
    rows = found.lens.table("bounds", found.at).to_pylist()
    return {
        **found.model,
        **downloads(found, figures=FIGURES, tables=("bounds",)),
        "rows": [{**_step(row), "href": found.href(step=row["step"])} for row in rows],
        "measured": bool(rows),
        "unmeasured": not rows,
        "headline": _headline(rows),
        "sources": ", ".join(sorted({SOURCES[row["tv_source"]] for row in rows})),
    }


def _headline(rows: list[Row]) -> str:
    """How many steps each bound says anything about."""
    if not rows:
        return ""
    judged = [row for row in rows if row["eq8_vacuous"] is not None]
    vacuous = [row for row in judged if row["eq8_vacuous"]]
    positive = [row for row in rows if row["eq7"] is not None and row["eq7"] > 0]
    if not judged:
        return "Neither bound can be evaluated: no response has all of its tokens, their TV and its reward."
    of = "the step" if len(judged) == 1 else f"{count(len(judged))} steps"
    if len(vacuous) == len(judged):
        eight = f"Eq. 8 is vacuous in {'all ' if len(judged) > 1 else ''}{of}: the policy moved so far that it says no "
        eight += "more than that rewards have a minimum."
    elif vacuous:
        eight = f"Eq. 8 limits the loss in {count(len(judged) - len(vacuous))} of {of}, and is vacuous in the others."
    else:
        eight = f"Eq. 8 limits the loss in {'all ' if len(judged) > 1 else ''}{of}."
    seven = (
        f" Eq. 7 is positive in {count(len(positive))}, but optimistic: it takes the largest TV seen for a supremum."
        if positive
        else ""
    )
    return eight + seven


def _step(row: Row) -> Row:
    change = None if None in (row["first_order"], row["correction"]) else row["first_order"] - row["correction"]
    floor = None if None in (row["reward_min"], row["mean_reward"]) else row["reward_min"] - row["mean_reward"]
    return {
        "step": str(row["step"]),
        "responses": count(row["responses"]),
        "left_out": count(row["left_out"]),
        "horizon": count(row["horizon"]),
        "xi": number(row["xi"]),
        "first_order": signed(row["first_order"]),
        "correction": signed(row["correction"]),
        "change": signed(change),
        "tv_sum": number(row["tv_sum"]),
        "tv_max": number(row["tv_max"]),
        "eq7": signed(row["eq7"]),
        "eq8": signed(row["eq8"]),
        "floor": signed(floor),
        "mismatch": number(row["mean_abs_log_mismatch"]),
        "says": _says(row),
    }


def _says(row: Row) -> str:
    """What Eq. 8 says of a step."""
    if row["eq8_vacuous"] is None:
        return "not known"
    return "vacuous" if row["eq8_vacuous"] else f"the loss is at most {number(-row['eq8'])}"
