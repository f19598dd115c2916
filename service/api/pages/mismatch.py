"""`/analyses/{id}/mismatch`: what the engine moved before any update, what the update moved, and what follows."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from service.api.pages.frame import Frame, downloads, frame
from service.api.pages.html import live, page, url
from service.api.pages.mismatch_rows import anchor_rows, band_rows, bin_rows, headline, lags, part_row, truncation_rows
from service.api.pages.options import options, reasons
from service.api.state import Services, ServicesDep
from service.api.views.mismatch import FIGURES, TABLES
from service.schemas.findings import by_level, sentence
from service.schemas.view import View
from web import words
from web.numbers import count, number, signed
from web.text import visible

__all__ = ["router"]

router = APIRouter()

Row = dict[str, Any]
RESPONSES = 20


@router.get("/analyses/{analysis}/mismatch")
def mismatch_page(request: Request, analysis: str, services: ServicesDep) -> Response:
    """log r = log ρ + log r′ by step and by probability; bf16 bands, the recompute anchor, truncation, responses."""
    return page(request, "mismatch.html", m=_model(services, analysis, View.of(request.query_params, set())))


@router.get("/analyses/{analysis}/mismatch/live")
def mismatch_live(request: Request, analysis: str, services: ServicesDep) -> Response:
    """The page's model, for sliders and for steps that land while the page is open."""
    return live(_model(services, analysis, View.of(request.query_params, set())))


def _model(services: Services, analysis: str, view: View) -> Row:
    found = frame(services, analysis, view, "mismatch")
    parts = _rows(found, "mismatch_parts")
    whole = {row["part"]: row for row in parts if row["p_low"] is None}
    known = whole["mismatch"]["n"] > 0
    findings = _findings(services, found)
    responses = _rows(found, "mismatch_responses", limit=RESPONSES)
    return {
        **found.model,
        **downloads(found, figures=FIGURES, tables=TABLES),
        **(_choices(found) if known else {}),
        "pair": _pair(found),
        "point": words.POINTS[found.at["evaluated_at"]],
        "has_mu": known,
        "lacks_mu": not known,
        "why": _why(found, whole["update"]["n"]),
        **headline(whole),
        "parts": [part_row(row) for row in whole.values()],
        "bins": bin_rows([row for row in parts if row["p_low"] is not None]),
        "many_steps": view.step is None and len(found.steps) > 1,
        **lags(_rows(found, "staleness")),
        **band_rows(_rows(found, "bands")),
        **anchor_rows(_rows(found, "anchors"), found.at),
        **truncation_rows(_rows(found, "truncation")),
        "findings": findings,
        "has_findings": bool(findings),
        "responses": [_response(row, found) for row in responses],
        "has_responses": bool(responses),
    }


def _rows(found: Frame, name: str, **more: Any) -> list[Row]:
    rows: list[Row] = TABLES[name].rows(found.lens, {**found.at, **more}).to_pylist()
    return rows


def _choices(found: Frame) -> Row:
    """Both anchors stand side by side here; what can be chosen is what is known from μ."""
    choices = options(found.steps, found.row, {**found.at, "anchor": "rollout"}, found.known)
    return {"options": {**found.model["options"], **choices}, "reasons": reasons({**choices, "anchor": []})}


def _pair(found: Frame) -> str:
    if found.at["evaluated_at"] == "logged" or found.row["source"] == "logged":
        return "π_old and π are the trainer’s own log-probs: old_logprobs and new_logprobs."
    return "π_old is OLD, recomputed, and π is NEW, the policy after the step."


def _why(found: Frame, n_update: int) -> str:
    if not any(found.known.values()):
        return "Nothing of this view is scored yet."
    lacking = "the log has no usable rollout_logprobs"
    if found.at["evaluated_at"] == "logged" and n_update == 0:
        lacking += ", or the trainer’s old_logprobs are not logged beside them"
    return f"{lacking[0].upper()}{lacking[1:]}; only the update can be shown."


def _findings(services: Services, found: Frame) -> list[Row]:
    """What imports found in the uploads behind the analysis: warnings, then notes, of each."""
    steps = {step["step"] for step in found.steps}
    return [
        {
            "level": level.removesuffix("s"),
            "message": sentence(finding),
            "upload": visible(upload["filename"] or upload["upload"], 60),
        }
        for upload in services.store.uploads.of_run(found.row["run_id"])
        if steps.intersection(upload["steps"])
        for level, findings in by_level(upload["warnings"]).items()
        for finding in findings
    ]


def _response(row: Row, found: Frame) -> Row:
    token = row["worst_token"]
    return {
        "sample": visible(row["sample_id"], 48),
        "href": url("analyses", found.row["analysis"], "rollout", query=_reading(row, found)),
        "step": str(row["step"]),
        "reward": number(row["reward"]),
        "advantage": signed(row["advantage"]),
        "tokens": count(row["n_tokens"]),
        "mean": number(row["mean_abs_log"]),
        "signed": signed(row["mean_log"]),
        "max": number(row["max_abs_log"]),
        "worst": f"“{visible(token, 24)}”" if token is not None else f"token {row['worst_token_id']}",
        "dp": number(row["mean_abs_dp"]),
        "ppo": count(row["n_ppo_drops"]),
        "dppo": count(row["n_dppo_drops"]),
    }


def _reading(row: Row, found: Frame) -> Row:
    """The response at its worst token, as it is before any update, seen from μ."""
    return {
        **found.view.common,
        "anchor": "rollout",
        "evaluated_at": "start",
        "step": row["step"],
        "sample_id": row["sample_id"],
        "at": row["worst_position"],
    }
