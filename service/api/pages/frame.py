"""What every page of an analysis has: the view, what it is of, its tabs, its controls, its jobs and its downloads."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from service.api.pages.html import formats, short, url
from service.api.pages.options import options, preset_options, reasons
from service.api.pages.progress import job_row
from service.api.state import Services
from service.api.views import FIGURES
from service.api.views.settled import settled
from service.schemas.findings import messages
from service.schemas.view import View
from service.store.lens import Lens
from web import words
from web.numbers import count, number, plain

__all__ = ["Frame", "downloads", "frame"]

Row = dict[str, Any]
TABS = {  # the last part of a page's path, and its name
    "": "Disagreement",
    "tokens": "Tokens",
    "approximation": "Approximation",
    "mismatch": "Mismatch",
    "methods": "Methods",
    "theory": "Theory",
}
DIALS = ("eps_low", "eps_high", "delta_low", "delta_high")
NEAR_RATIO, NEAR_DIVERGENCE = 1e-3, 1e-4  # the least that counts as near, as in the macro _floor


@dataclass(frozen=True)
class Frame:
    """An analysis under a view.

    row: the analysis. at: SQL parameters of the view. known: how many tokens have each anchor/point/estimate. model:
    what the page's head and its controls print.
    """

    row: Row
    at: Row
    steps: list[Row]
    view: View
    known: dict[str, int]
    model: Row
    lens: Lens

    def href(self, *parts: str, **query: Any) -> str:
        """A path below the analysis under the same view, changed by `query`."""
        return url("analyses", self.row["analysis"], *parts, query={**self.view.common, **query})

    def response(self, step: int, sample_id: str, at: int | None = None) -> str:
        """The path of one response, at one of its tokens."""
        return self.href("rollout", step=step, sample_id=sample_id, at=at)


def frame(services: Services, analysis: str, view: View, tab: str) -> Frame:
    """The frame of the page `tab`: a key of `TABS`, or the last part of the path of a page that has no tab."""
    row = services.store.analyses.get(analysis)
    lens = services.store.lens
    at = settled(lens, view.parameters(row))
    if at.get("matched"):  # a link to another page keeps the δ that were found here
        view = view.model_copy(update={name: at[name] for name in ("delta_low", "delta_high")})
    steps = services.store.analyses.steps(analysis)
    (known,) = lens.table("availability", at).to_pylist()
    jobs = [
        job_row(job)
        for job in services.jobs.of_run(row["run_id"])
        if job.request.get("analysis") == analysis and not job.finished
    ]
    path = [part for part in (tab,) if part]
    model = {
        **_about(row, steps, view, at, known),
        **_noise(lens.table("noise", at).to_pylist()[0], at),
        **_controls(row, view, at, steps, known),
        "live": url("analyses", analysis, *path, "live"),
        "path": url("analyses", analysis, *path),
        "rollout_path": url("analyses", analysis, "rollout"),
        "tabs": [
            {
                "label": label,
                "slug": slug,
                "href": url("analyses", analysis, *([slug] if slug else []), query=view.common),
                "current": "page" if slug == tab else "false",
            }
            for slug, label in TABS.items()
        ],
        "jobs": jobs,
        "has_jobs": bool(jobs),
        "filling": bool(jobs) and row["n_finished"] < row["n_steps"],
        "paused": not jobs and row["n_finished"] < row["n_steps"],
    }
    return Frame(row, at, steps, view, known, model, lens)


def downloads(found: Frame, figures: Iterable[str] = (), tables: Iterable[str] = ()) -> Row:
    """Addresses of figures, and of what can be taken home of figures and tables, by `<kind>.<name>`.

    A figure has `figure.<name>`; figures and tables have `csv.<name>`, `parquet.<name>` and `sql.<name>`.
    """
    place, query = ("api", "v1", "analyses", found.row["analysis"]), found.view.chosen
    model: Row = {}
    for name in figures:
        model[f"figure.{name}"] = url(*place, "figures", name)
        model |= formats(name, *place, "tables", FIGURES[name].table, query=query)
    for name in tables:
        model |= formats(name, *place, "tables", name, query=query)
    return model


def _about(row: Row, steps: list[Row], view: View, at: Row, known: dict[str, int]) -> Row:
    """What the pages say about the pair, its state and its thresholds."""
    of_view = [step for step in steps if view.step in (None, step["step"])]
    spans = {step["span"] for step in of_view}
    skipped = json.loads(row["skipped_steps"])
    spanning = sorted(step["step"] for step in of_view if (step["span"] or 1) != 1)
    warnings, notes = (messages(level, row["warnings"]) for level in ("warning", "note"))
    return {
        "analysis": row["analysis"],
        "short": short(row["analysis"]),
        "run": row["run"],
        "compare_href": url(
            "compare", query={"a": row["analysis"], **{f"a_{name}": value for name, value in view.common.items()}}
        ),
        "run_href": url("runs", row["run"], query={"analysis": row["analysis"]}),
        "where": "all steps" if view.step is None else f"step {view.step}",
        "pair": words.pair_sentence(
            at["anchor"], at["evaluated_at"], spans.pop() if len(spans) == 1 else None, row["source"]
        ),
        "no_mu": any(known.values()) and not any(n for pair, n in known.items() if pair.startswith("rollout/")),
        "spanning": bool(spanning) and at["evaluated_at"] == "end",
        "spans": ", ".join(
            f"step {step['step']} spans {step['span']} steps" for step in of_view if (step["span"] or 1) != 1
        ),
        "finished": f"{row['n_finished']} of {row['n_steps']} steps",
        "stale": row["stale"],
        "warnings": [{"message": message} for message in warnings],
        "has_warnings": bool(warnings),
        "notes": [{"message": message} for message in notes],
        "has_notes": bool(notes),
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


def _controls(row: Row, view: View, at: Row, steps: list[Row], known: dict[str, int]) -> Row:
    """What the controls say, what they would say by themselves, and what can be chosen."""
    choices = {**options(steps, row, at, known), "preset": preset_options(row, view, at)}
    return {
        "controls": {name: at[name] for name in DIALS},
        "defaults": _defaults(row, view, at),
        "preset_note": words.PRESET_NOTES.get(view.preset or "", ""),
        "delta_top": 0.5 if at["divergence"].endswith("tv") else 0.25,
        "options": choices,
        "reasons": reasons(choices),
    }


def _defaults(row: Row, view: View, at: Row) -> Row:
    """What each control says when the address says nothing of it. A δ that is locked says what it must."""
    untouched = view.model_copy(update=dict.fromkeys(DIALS)).parameters(row)
    return {
        "step": "",
        "sign": "",
        "preset": "",
        "anchor": row["anchor"],
        "evaluated_at": row["evaluated_at"],
        "divergence": "binary_tv",
        **{name: at[name] if at.get("matched") and name.startswith("delta") else untouched[name] for name in DIALS},
    }
