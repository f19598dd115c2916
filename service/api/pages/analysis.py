"""`/analyses/{id}`: where PPO and DPPO disagree, under the view in the query string."""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter, Request, Response

from service.api.pages.cells import by_step, cell_table
from service.api.pages.html import live, page, short, url
from service.api.pages.options import options, reasons
from service.api.pages.progress import job_row
from service.api.state import Services, ServicesDep
from service.schemas.view import View
from web import words
from web.numbers import count, number, plain, signed
from web.text import visible

__all__ = ["about", "router"]

router = APIRouter()

Row = dict[str, Any]
ROLLOUTS = 20
NEAR_RATIO, NEAR_DIVERGENCE = 1e-3, 1e-4  # the least that counts as near, as in the macro _floor of the contract


@router.get("/analyses/{analysis}")
def analysis_page(request: Request, analysis: str, services: ServicesDep) -> Response:
    """Controls, the four cells by sign of A, the two planes, and the responses with most disagreement."""
    return page(request, "analysis.html", m=_model(services, analysis, View.of(request.query_params, set())))


@router.get("/analyses/{analysis}/live")
def analysis_live(request: Request, analysis: str, services: ServicesDep) -> Response:
    """The page's model, for sliders and for steps that land while the page is open."""
    return live(_model(services, analysis, View.of(request.query_params, set())))


def _model(services: Services, analysis: str, view: View) -> Row:
    row = services.store.analyses.get(analysis)
    lens = services.store.lens
    at = view.parameters(row)
    steps = services.store.analyses.steps(analysis)
    (known,) = lens.table("availability", at).to_pylist()
    cells = lens.table("cells", at).to_pylist()
    rollouts = lens.table("rollouts", {**at, "limit": ROLLOUTS, "offset": 0}).to_pylist()
    jobs = [
        job_row(job)
        for job in services.jobs.of_run(row["run_id"])
        if job.request.get("analysis") == analysis and not job.finished
    ]
    choices = options(steps, row, at, known)
    base = {key: value for key, value in view.chosen.items() if key != "step"}
    return {
        **about(row, steps, view, at, known),
        **cell_table(cells, at["evaluated_at"]),
        **_noise(lens.table("noise", at).to_pylist()[0], at),
        "live": url("analyses", analysis, "live"),
        "path": url("analyses", analysis),
        "figures": {
            name: url("api", "v1", "analyses", analysis, "figures", name)
            for name in ("ratio_plane", "divergence_plane")
        },
        "rollout_path": url("analyses", analysis, "rollout"),
        "controls": {name: at[name] for name in ("eps_low", "eps_high", "delta_low", "delta_high")},
        "defaults": _defaults(row, at),
        "delta_top": 0.5 if at["divergence"].endswith("tv") else 0.25,
        "options": choices,
        "reasons": reasons(choices),
        "by_step": []
        if view.step is not None
        else [
            {**entry, "href": url("analyses", analysis, query={**base, "step": entry["number"]})}
            for entry in by_step(cells, steps)
        ],
        "many_steps": view.step is None and len(steps) > 1 and bool(cells),
        "rollouts": [_rollout(entry, analysis, view) for entry in rollouts],
        "has_rollouts": bool(rollouts),
        "jobs": jobs,
        "has_jobs": bool(jobs),
        "filling": bool(jobs) and row["n_finished"] < row["n_steps"],
        "paused": not jobs and row["n_finished"] < row["n_steps"],
        **_downloads(analysis, view),
    }


def about(row: Row, steps: list[Row], view: View, at: Row, known: dict[str, int]) -> Row:
    """What both the analysis's and the response's page say about the pair, its state and its thresholds."""
    of_view = [step for step in steps if view.step in (None, step["step"])]
    spans = {step["span"] for step in of_view}
    skipped = json.loads(row["skipped_steps"])
    spanning = sorted(step["step"] for step in of_view if (step["span"] or 1) != 1)
    warnings = json.loads(row["warnings"])
    return {
        "analysis": row["analysis"],
        "short": short(row["analysis"]),
        "run": row["run"],
        "run_href": url("runs", row["run"], query={"analysis": row["analysis"]}),
        "where": "all steps" if view.step is None else f"step {view.step}",
        "pair": words.pair_sentence(at["anchor"], at["evaluated_at"], spans.pop() if len(spans) == 1 else None),
        "no_mu": any(known.values()) and not any(n for pair, n in known.items() if pair.startswith("rollout/")),
        "spanning": bool(spanning) and at["evaluated_at"] == "end",
        "spans": ", ".join(
            f"step {step['step']} spans {step['span']} steps" for step in of_view if (step["span"] or 1) != 1
        ),
        "finished": f"{row['n_finished']} of {row['n_steps']} steps",
        "stale": row["stale"],
        "warnings": [{"message": message} for message in warnings],
        "has_warnings": bool(warnings),
        "has_skipped": bool(skipped),
        "skipped": [{"message": f"step {entry['step']}: {entry['reason']}"} for entry in skipped],
        "method": f"{words.DIVERGENCES[at['divergence']]}, δ_low {plain(at['delta_low'])}, "
        f"δ_high {plain(at['delta_high'])}",
        "made": (
            "log-probs as logged, no model scored"
            if row["source"] == "logged"
            else f"scored in {row['dtype']}, top-K with K = {row['top_k']} ({row['topk_mode']})"
        ),
        "weight": "C = ∞" if at["weight_cap"] is None else f"C = {plain(at['weight_cap'])}",
    }


def _noise(noise: Row, at: Row) -> Row:
    """What scoring OLD twice already shows, how near a threshold is near, and whether masks can be decided at all."""
    smallest = min(at["delta_low"], at["delta_high"])
    undecided = noise["tv"] is not None and noise["tv"] > smallest / 3
    return {
        "near_epsilon": _within(NEAR_RATIO, noise["log_ratio"]),
        "near_delta": _within(NEAR_DIVERGENCE, noise["tv"]),
        "noise": "noise floor not measured"
        if noise["tv"] is None
        else f"noise floor, OLD scored twice in other batches: 99 % of {count(noise['n'])} tokens within "
        f"{number(noise['log_ratio'])} nats and TV {number(noise['tv'])}",
        "undecided": undecided,
        "undecided_why": f"TV {number(noise['tv'])} against δ = {plain(smallest)}" if undecided else "",
    }


def _within(least: float, noise: float | None) -> str:
    return f"± {plain(least) if noise is None or noise <= least else number(noise)}"


def _defaults(row: Row, at: Row) -> Row:
    """What each control says when the address says nothing."""
    kind = at["divergence"].rpartition("_")[2]
    return {
        "step": "",
        "sign": "",
        "anchor": row["anchor"],
        "evaluated_at": row["evaluated_at"],
        "divergence": "binary_tv",
        "eps_low": row["eps_low"],
        "eps_high": row["eps_high"],
        "delta_low": row[f"delta_{kind}_low"],
        "delta_high": row[f"delta_{kind}_high"],
    }


def _rollout(row: Row, analysis: str, view: View) -> Row:
    query = {**view.chosen, "step": row["step"], "sample_id": row["sample_id"]}
    return {
        "sample": visible(row["sample_id"], 48),
        "group": visible(row["group_id"], 32),
        "step": str(row["step"]),
        "href": url("analyses", analysis, "rollout", query=query),
        "reward": number(row["reward"]),
        "advantage": signed(row["advantage"]),
        "tokens": count(row["n_tokens"]),
        "ppo_only": count(row["n_ppo_only"]),
        "dppo_only": count(row["n_dppo_only"]),
        "both": count(row["n_both"]),
        "mean_dp": number(row["mean_abs_dp"]),
    }


def _downloads(analysis: str, view: View) -> dict[str, str]:
    table = ("api", "v1", "analyses", analysis, "tables", "cells")
    return {
        "csv": url(*table, query={**view.chosen, "format": "csv"}),
        "parquet": url(*table, query={**view.chosen, "format": "parquet"}),
        "database": url("api", "v1", "analyses", analysis, "database"),
    }
