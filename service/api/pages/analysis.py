"""`/analyses/{id}`: where two methods disagree, under the view in the query string."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from service.api.pages.cells import by_step, cell_table, in_slots
from service.api.pages.compared import matched, methods, selection
from service.api.pages.frame import Frame, downloads, frame
from service.api.pages.html import live, page, url
from service.api.pages.intervals import intervals
from service.api.pages.parts import PARTS, RENDERED
from service.api.pages.trainer import trainer_links
from service.api.state import Services, ServicesDep
from service.errors import NotFound
from service.schemas.view import DisagreementView

__all__ = ["router"]

router = APIRouter()

Row = dict[str, Any]


@router.get("/analyses/{analysis}")
def analysis_page(request: Request, analysis: str, services: ServicesDep) -> Response:
    """Controls, the four cells by sign of A, the two planes, bins, and the responses with most disagreement."""
    found = _frame(request, analysis, services)
    model = {**_model(found), **trainer_links(found)}
    for part in RENDERED.values():
        model |= part(found)
    return page(request, "analysis.html", m=model)


@router.get("/analyses/{analysis}/live")
def analysis_live(request: Request, analysis: str, services: ServicesDep) -> Response:
    """The page's model without its parts, for sliders and for steps that land while the page is open."""
    return live(_model(_frame(request, analysis, services)))


@router.get("/analyses/{analysis}/parts/{name}")
def analysis_part(request: Request, analysis: str, name: str, services: ServicesDep) -> Response:
    """The model of a part: what needs a table of its own, and would hold up the counts."""
    if name not in PARTS:
        raise NotFound(f"there is no part {name!r}; there are {', '.join(PARTS)}")
    return live(PARTS[name](_frame(request, analysis, services)))


def _frame(request: Request, analysis: str, services: Services) -> Frame:
    return frame(services, analysis, DisagreementView.of(request.query_params, set()), "")


def _model(found: Frame) -> Row:
    view, at, analysis = found.view, found.at, found.at["analysis"]
    assert isinstance(view, DisagreementView)
    compared = methods(found)
    cells = in_slots(found.lens.table("cells", at).to_pylist(), (at["first"], at["second"]))
    here = {name: value for name, value in view.chosen.items() if not (view.match and name.startswith("delta"))}
    return {
        **found.model,
        **compared,
        **matched(at),
        **selection(view, found),
        **cell_table(cells, at["evaluated_at"], compared["titles"]),
        **intervals(None, at),
        "options": {**found.model["options"], **compared["options"]},
        "defaults": {**found.model["defaults"], **compared["defaults"]},
        "rollout_path": found.href("rollout"),
        "parts": {name: url("analyses", analysis, "parts", name) for name in PARTS},
        "by_step": []
        if view.step is not None
        else [
            {**entry, "href": url("analyses", analysis, query={**here, "step": entry["number"]})}
            for entry in by_step(cells, found.steps)
        ],
        "many_steps": view.step is None and len(found.steps) > 1 and bool(cells),
        **downloads(found, ("ratio_plane", "divergence_plane", "bins"), ("cells", "intervals")),
        "database": url("api", "v1", "analyses", analysis, "database"),
    }
