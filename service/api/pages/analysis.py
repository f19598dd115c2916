"""`/analyses/{id}`: where PPO and DPPO disagree, under the view in the query string."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from service.api.pages.cells import by_step, cell_table
from service.api.pages.frame import Frame, downloads, frame
from service.api.pages.html import live, page, url
from service.api.state import Services, ServicesDep
from service.schemas.view import View
from web.numbers import count, number, signed
from web.text import visible

__all__ = ["router"]

router = APIRouter()

Row = dict[str, Any]
ROLLOUTS = 20


@router.get("/analyses/{analysis}")
def analysis_page(request: Request, analysis: str, services: ServicesDep) -> Response:
    """Controls, the four cells by sign of A, the two planes, and the responses with most disagreement."""
    return page(request, "analysis.html", m=_model(services, analysis, View.of(request.query_params, set())))


@router.get("/analyses/{analysis}/live")
def analysis_live(request: Request, analysis: str, services: ServicesDep) -> Response:
    """The page's model, for sliders and for steps that land while the page is open."""
    return live(_model(services, analysis, View.of(request.query_params, set())))


def _model(services: Services, analysis: str, view: View) -> Row:
    found = frame(services, analysis, view, "")
    cells = found.lens.table("cells", found.at).to_pylist()
    rollouts = found.lens.table("rollouts", {**found.at, "limit": ROLLOUTS, "offset": 0}).to_pylist()
    return {
        **found.model,
        **cell_table(cells, found.at["evaluated_at"]),
        "by_step": []
        if view.step is not None
        else [{**entry, "href": found.href(step=entry["number"])} for entry in by_step(cells, found.steps)],
        "many_steps": view.step is None and len(found.steps) > 1 and bool(cells),
        "rollouts": [_rollout(entry, found) for entry in rollouts],
        "has_rollouts": bool(rollouts),
        **downloads(found, figures=("ratio_plane", "divergence_plane"), tables=("cells", "rollouts")),
        "database": url("api", "v1", "analyses", analysis, "database"),
    }


def _rollout(row: Row, found: Frame) -> Row:
    return {
        "sample": visible(row["sample_id"], 48),
        "group": visible(row["group_id"], 32),
        "step": str(row["step"]),
        "href": found.response(row["step"], row["sample_id"]),
        "reward": number(row["reward"]),
        "advantage": signed(row["advantage"]),
        "tokens": count(row["n_tokens"]),
        "ppo_only": count(row["n_ppo_only"]),
        "dppo_only": count(row["n_dppo_only"]),
        "both": count(row["n_both"]),
        "mean_dp": number(row["mean_abs_dp"]),
    }
