"""`/analyses/{id}/methods`: what every registered method would do with this run's tokens, and how every two agree."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from dppo_core.methods.catalog import METHODS
from service.api.pages.frame import downloads, frame
from service.api.pages.html import live, page
from service.api.state import Services, ServicesDep
from service.schemas.view import MethodsView
from web import words
from web.numbers import count, number, percent

__all__ = ["router"]

router = APIRouter()

Row = dict[str, Any]
LEVELS = {"token": "a token", "sequence": "a response", "prompt": "a prompt"}
MEASURES = {"kappa": "Cohen’s κ", "agreement": "share decided alike"}


@router.get("/analyses/{analysis}/methods")
def methods_page(request: Request, analysis: str, services: ServicesDep) -> Response:
    """Drop rates by sign, agreement of every two methods, and those that this log cannot feed, with the reason."""
    return page(request, "methods.html", m=_model(services, analysis, MethodsView.of(request.query_params, set())))


@router.get("/analyses/{analysis}/methods/live")
def methods_live(request: Request, analysis: str, services: ServicesDep) -> Response:
    """The page's model, for controls and for steps that land while the page is open."""
    return live(_model(services, analysis, MethodsView.of(request.query_params, set())))


def _model(services: Services, analysis: str, view: MethodsView) -> Row:
    found = frame(services, analysis, view, "methods")
    rows = found.lens.table("methods", found.at).to_pylist()
    known = [row for row in rows if row["reason"] is None]
    model = {
        **found.model,
        **downloads(found, figures=("method_matrix", "method_drop_rates"), tables=("methods",)),
        "n_known": count(len(known)),
        "n_methods": count(len(METHODS)),
        "measured": bool(rows),
        "unmeasured": not rows,
        "point": words.POINTS[found.row["evaluated_at"]],
        "methods": [_method(row) for row in known],
        "unavailable": [
            {"title": METHODS[row["method"]].title, "reason": row["reason"]}
            for row in rows
            if row["reason"] is not None
        ],
        "has_unavailable": len(known) < len(rows),
    }
    choices = [
        {"value": value, "label": label, "disabled": False, "reason": "", "selected": value == view.measure}
        for value, label in MEASURES.items()
    ]
    model["options"] = {**model["options"], "measure": choices}
    model["defaults"] = {**model["defaults"], "measure": "kappa"}
    return model


def _method(row: Row) -> Row:
    method = METHODS[row["method"]]
    return {
        "title": method.title,
        "rule": method.rule,
        "source": method.source,
        "level": LEVELS[method.level],
        "status": "" if method.status == "read" else method.status,
        "positive": percent(row["n_drop_positive"], row["n_positive"]),
        "negative": percent(row["n_drop_negative"], row["n_negative"]),
        "dropped": count((row["n_drop_positive"] or 0) + (row["n_drop_negative"] or 0)),
        "kappa_ppo": number(row["kappa_ppo"]),
        "kappa_dppo": number(row["kappa_dppo"]),
    }
