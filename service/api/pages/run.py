"""`/runs/{run}`: what happened over training."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request, Response

from dppo_core.methods.catalog import PRESETS
from service.api.pages.html import live, moment, page, short, url
from service.api.pages.names import analysis_label, both_sides
from service.api.pages.progress import job_row, shown_jobs
from service.api.pages.training import training
from service.api.state import Services, ServicesDep
from service.errors import NotFound
from service.schemas.findings import by_level, messages, sentence
from service.schemas.overview import RunView
from web import words
from web.numbers import count, plain, size

__all__ = ["router"]

router = APIRouter()

Row = dict[str, Any]


@router.get("/runs/{run}")
def run_page(request: Request, run: str, services: ServicesDep) -> Response:
    """Timelines over steps, analyses, checkpoints, uploads and jobs of one run."""
    return page(request, "run.html", m=_model(services, run, _view(request)), presets=_presets())


@router.get("/runs/{run}/live")
def run_live(request: Request, run: str, services: ServicesDep) -> Response:
    """The page's model, for a page that is open while steps land."""
    return live(_model(services, run, _view(request)))


def _view(request: Request) -> RunView:
    """The view in the address; a form writes `methods` once a method, a link all of them in one."""
    methods = ",".join(dict.fromkeys(request.query_params.getlist("methods")))
    return RunView.of({**request.query_params, "methods": methods}, set())


def _presets() -> dict[str, str]:
    return {
        name: json.dumps({key: value for key, value in asdict(preset).items() if value is not None})
        for name, preset in PRESETS.items()
    }


def _model(services: Services, run: str, view: RunView) -> Row:
    row = services.store.runs.get(run)
    analyses = services.store.analyses.of_run(row["run_id"])
    shown = _shown(analyses, view.analysis, run)
    chosen = shown["analysis"] if shown else None
    known = training(services, run, shown, view)
    checkpoints = services.store.checkpoints.of_run(row["run_id"])
    steps = services.store.uploads.steps(row["run_id"])
    paired = _pairs(steps, checkpoints)
    uploads = [_upload(entry) for entry in services.store.uploads.of_run(row["run_id"])]
    jobs = [job_row(job) for job in shown_jobs(services.jobs.of_run(row["run_id"]))]
    waiting = shown is not None and shown["n_finished"] < shown["n_steps"]
    return {
        **known,
        "run": run,
        "path": url("runs", run),
        "live": url("runs", run, "live", query=view.chosen),
        "facts": _facts(row),
        "analysis": chosen or "",
        "has_analysis": shown is not None,
        "no_rollouts": not steps,
        "has_rollouts": bool(steps),
        "no_pair": bool(steps) and not analyses and not paired,
        "ready": bool(steps) and not analyses and paired,
        "no_analyses": not analyses,
        "has_analyses": bool(analyses),
        "has_checkpoints": bool(checkpoints),
        "has_jobs": bool(jobs),
        "shown": f"{len(steps)} {chosen} {shown['n_finished'] if shown else ''} {known['methods_measured']}",
        "title": f"analysis {short(chosen)}" if chosen else "",
        "pair": _pair(services, shown) if shown else "",
        "waiting": waiting,
        "waiting_for": f"{shown['n_finished']} of {shown['n_steps']} steps of this analysis are scored."
        if shown
        else "",
        "analysis_href": url("analyses", chosen) if chosen else "",
        "analyses": [_analysis(entry, view, run, chosen) for entry in analyses],
        "checkpoints": [_checkpoint(entry) for entry in checkpoints],
        "uploads": uploads,
        "has_uploads": bool(uploads),
        "jobs": jobs,
        "busy": any(job["active"] for job in jobs),
    }


def _shown(analyses: list[Row], wanted: str | None, run: str) -> Row | None:
    """The analysis whose numbers the figures show: the one asked for, else the newest with a finished step."""
    if wanted is not None:
        found = [entry for entry in analyses if entry["analysis"] == wanted]
        if not found:
            raise NotFound(f"run {run!r} has no analysis {wanted!r}")
        return found[0]
    return next((entry for entry in analyses if entry["n_finished"]), analyses[0] if analyses else None)


def _pairs(steps: Iterable[int], checkpoints: list[Row]) -> bool:
    known = {entry["step"] for entry in checkpoints}
    return any(step in known and step + 1 in known for step in steps)


def _pair(services: Services, analysis: Row) -> str:
    spans = {step["span"] for step in services.store.analyses.steps(analysis["analysis"])}
    span = spans.pop() if len(spans) == 1 else None
    return words.pair_sentence(analysis["anchor"], analysis["evaluated_at"], span, analysis["source"])


def _facts(row: Row) -> list[dict[str, str]]:
    facts = {
        "Framework": row["framework"] or "not given",
        "Responses": count(row["n_rollouts"]),
        "Response tokens": count(row["n_tokens"]),
        "Steps": count(row["n_steps"]),
        "Sampling": f"T = {plain(row['temperature'])}, top-p {plain(row['top_p'])}, "
        + (f"top-k {row['top_k']}" if row["top_k"] > 1 else "no top-k"),
        "Logged log-probs": {"raw": "raw", "processed": "processed", None: "not said"}[row["logprobs_mode"]],
        "Created": moment(row["created_at"])["text"],
    }
    return [{"name": name, "value": value} for name, value in facts.items()]


def _analysis(row: Row, view: RunView, run: str, chosen: str | None) -> Row:
    skipped = json.loads(row["skipped_steps"])
    query = {"analysis": row["analysis"], "methods": view.methods}
    return {
        "id": short(row["analysis"]),
        "analysis": row["analysis"],
        "label": analysis_label(row),
        "href": url("analyses", row["analysis"]),
        "show": url("runs", run, query=query),
        "shown": row["analysis"] == chosen,
        "hidden": row["analysis"] != chosen,
        "pair": words.pair_arrow(row["anchor"], row["evaluated_at"]),
        "eps": f"{plain(row['eps_low'])} / {plain(row['eps_high'])}",
        "tv": both_sides(row["delta_tv_low"], row["delta_tv_high"]),
        "kl": both_sides(row["delta_kl_low"], row["delta_kl_high"]),
        "source": {"scored": f"scored in {row['dtype']}", "logged": "logged log-probs only"}[row["source"]],
        "finished": f"{row['n_finished']} / {row['n_steps']}",
        "stale": row["stale"],
        "created": moment(row["created_at"])["text"],
        "warnings": [{"message": message} for message in messages("warning", row["warnings"])],
        "notes": [{"message": message} for message in messages("note", row["warnings"])],
        "skipped": [{"message": f"step {entry['step']}: {entry['reason']}"} for entry in skipped],
    }


def _checkpoint(row: Row) -> Row:
    return {
        "step": str(row["step"]),
        "label": row["label"] or "–",
        "path": row["path"],
        "adapter": row["adapter"] or "",
        "fingerprint": row["fingerprint"][:12],
        "created": moment(row["created_at"])["text"],
        "warnings": [{"message": message} for message in json.loads(row["warnings"])],
    }


def _upload(row: Row) -> Row:
    steps = row["steps"]
    listed = ", ".join(str(step) for step in steps[:12]) + (f" … ({len(steps)} in all)" if len(steps) > 12 else "")
    return {
        "name": row["filename"] or short(row["upload"]),
        "size": size(row["bytes"]),
        "format": row["format"],
        "rollouts": count(row["rollouts"]),
        "tokens": count(row["tokens"]),
        "skipped": count(row["skipped"]),
        "steps": listed or "none (replaced)",
        "created": moment(row["created_at"])["text"],
        **{
            level: [{"message": sentence(finding)} for finding in found]
            for level, found in by_level(row["warnings"]).items()
        },
    }
