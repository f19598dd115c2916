"""`/runs/{run}`: what happened over training."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request, Response

from dppo_core.methods.catalog import PRESETS
from service.api.pages.html import live, moment, page, short, url
from service.api.pages.progress import job_row, shown_jobs
from service.api.state import Services, ServicesDep
from service.errors import NotFound
from service.schemas.findings import by_level, messages, sentence
from web import words
from web.numbers import count, number, plain, size

__all__ = ["router"]

router = APIRouter()

Row = dict[str, Any]
FIGURES = ("drift", "extremes", "reward", "masks_positive", "masks_negative", "entropy")


@router.get("/runs/{run}")
def run_page(request: Request, run: str, services: ServicesDep, analysis: str | None = None) -> Response:
    """Timelines over steps, analyses, checkpoints, uploads and jobs of one run."""
    return page(request, "run.html", m=_model(services, run, analysis or None), presets=_presets())


@router.get("/runs/{run}/live")
def run_live(run: str, services: ServicesDep, analysis: str | None = None) -> Response:
    """The page's model, for a page that is open while steps land."""
    return live(_model(services, run, analysis or None))


def _presets() -> dict[str, str]:
    return {
        name: json.dumps({key: value for key, value in asdict(preset).items() if value is not None})
        for name, preset in PRESETS.items()
    }


def _model(services: Services, run: str, wanted: str | None) -> Row:
    row = services.store.runs.get(run)
    analyses = services.store.analyses.of_run(row["run_id"])
    shown = _shown(analyses, wanted, run)
    chosen = shown["analysis"] if shown else None
    steps = services.store.lens.table("timeline", {"run": run, "analysis": chosen}).to_pylist()
    checkpoints = services.store.checkpoints.of_run(row["run_id"])
    paired = _pairs(steps, checkpoints)
    uploads = [_upload(entry) for entry in services.store.uploads.of_run(row["run_id"])]
    jobs = [job_row(job) for job in shown_jobs(services.jobs.of_run(row["run_id"]))]
    return {
        "run": run,
        "live": url("runs", run, "live", query={"analysis": wanted}),
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
        "shown": f"{len(steps)} {chosen} {shown['n_finished'] if shown else ''}",
        "title": f"analysis {short(chosen)}" if chosen else "",
        "pair": _pair(services, shown) if shown else "",
        "analysis_href": url("analyses", chosen) if chosen else "",
        "figures": {
            name: url("api", "v1", "runs", run, "figures", f"timeline_{name}", query={"analysis": chosen})
            for name in FIGURES
        },
        "steps": [_step(step, shown) for step in steps],
        "analyses": [_analysis(entry, run, chosen) for entry in analyses],
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


def _pairs(steps: list[Row], checkpoints: list[Row]) -> bool:
    known = {entry["step"] for entry in checkpoints}
    return any(step["step"] in known and step["step"] + 1 in known for step in steps)


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


def _step(step: Row, analysis: Row | None) -> Row:
    known = step["mean_abs_dp"] is not None

    def rate(name: str) -> str:
        value = step[name]
        return "–" if value is None else "0" if value == 0 else number(100 * value)

    return {
        "step": str(step["step"]),
        "rollouts": count(step["n_rollouts"]),
        "length": number(step["mean_length"]),
        "reward": number(step["mean_reward"]),
        "entropy": number(step["mean_entropy_old"]),
        "mean_dp": number(step["mean_abs_dp"]),
        "max_dp": number(step["max_dp"]),
        "min_dp": number(step["min_dp"]),
        "ppo_positive": rate("ppo_positive"),
        "dppo_positive": rate("binary_tv_positive"),
        "ppo_negative": rate("ppo_negative"),
        "dppo_negative": rate("binary_tv_negative"),
        "linked": known,
        "unlinked": not known,
        "href": url("analyses", analysis["analysis"], query={"step": step["step"]}) if analysis and known else "",
    }


def _analysis(row: Row, run: str, chosen: str | None) -> Row:
    skipped = json.loads(row["skipped_steps"])
    return {
        "id": short(row["analysis"]),
        "href": url("analyses", row["analysis"]),
        "show": url("runs", run, query={"analysis": row["analysis"]}),
        "shown": row["analysis"] == chosen,
        "hidden": row["analysis"] != chosen,
        "pair": f"{'μ' if row['anchor'] == 'rollout' else 'π_old'} → "
        f"{ {'start': 'OLD', 'end': 'NEW', 'logged': 'logged π'}[row['evaluated_at']] }",
        "eps": f"{plain(row['eps_low'])} / {plain(row['eps_high'])}",
        "tv": _both(row["delta_tv_low"], row["delta_tv_high"]),
        "kl": _both(row["delta_kl_low"], row["delta_kl_high"]),
        "source": {"scored": f"scored in {row['dtype']}", "logged": "logged log-probs only"}[row["source"]],
        "finished": f"{row['n_finished']} / {row['n_steps']}",
        "stale": row["stale"],
        "created": moment(row["created_at"])["text"],
        "warnings": [{"message": message} for message in messages("warning", row["warnings"])],
        "notes": [{"message": message} for message in messages("note", row["warnings"])],
        "skipped": [{"message": f"step {entry['step']}: {entry['reason']}"} for entry in skipped],
    }


def _both(low: float, high: float) -> str:
    return plain(low) if low == high else f"{plain(low)} / {plain(high)}"


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
