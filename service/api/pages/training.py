"""What a run's page says of its training: which steps left the range of the first ones, and every step's numbers."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from dppo_core.methods.catalog import METHODS
from service.api.pages.html import formats, url
from service.api.state import Services
from service.api.views import RUN_FIGURES
from service.api.views.overview import stride
from service.schemas.overview import MOST_METHODS, RunView
from web import words
from web.numbers import count, number, percent

__all__ = ["training"]

Row = dict[str, Any]
SHOWN_STEPS, SHOWN_MARKS = 100, 10
NOISE = 1e-4  # the least that counts as noise
PANELS = {name.removeprefix("timeline_"): figure for name, figure in RUN_FIGURES.items()}


def training(services: Services, run: str, analysis: Row | None, view: RunView) -> Row:
    """The model of the section "Over training" for `analysis`, whatever the view says of it."""
    chosen = analysis["analysis"] if analysis else None
    at = {**view.parameters(run), "analysis": chosen}
    timeline, marks = (services.store.lens.table(name, at) for name in ("timeline", "step_marks"))
    steps = timeline.to_pylist()
    return {
        **_places(run, {"analysis": chosen, "methods": view.methods}),
        **_marks(marks, analysis),
        "noise": _noise(services.store.lens.table("noise", at).to_pylist()[0]),
        **_methods(services, analysis, view),
        **_page_of_steps(steps, marks, analysis, run, view),
        "most_methods": MOST_METHODS,
        "is_thinned": stride(len(steps)) > 1,
        "thinned": f"Of {count(len(steps))} steps the figures draw one in {stride(len(steps))} and all marked ones; "
        "the tables to download have all.",
    }


def _places(run: str, query: Row) -> Row:
    """Where each panel's figure and its rows are."""
    place = ("api", "v1", "runs", run)
    model: Row = {}
    for name, figure in PANELS.items():
        model[f"figure.{name}"] = url(*place, "figures", f"timeline_{name}", query=query)
        model |= formats(name, *place, "tables", figure.table, query=query)
    for name in ("step_marks", "timeline"):
        model |= formats(name, *place, "tables", name, query=query)
    return model


def _marks(marks: pa.Table, analysis: Row | None) -> Row:
    """The steps that left the range of the first ones, in words, and how many there are."""
    rows = marks.to_pylist()
    marked: dict[int, list[Row]] = {}
    for row in sorted(rows, key=lambda row: int(row["step"])):
        if row["marked"]:
            marked.setdefault(row["step"], []).append(row)
    reference = max((row["n_reference"] for row in rows), default=0)
    known = len({row["step"] for row in rows})
    if analysis is None:
        said = "No analysis yet: what stands below was logged."
    elif not known:
        said = "No step is scored yet: what stands below was logged."
    elif known <= reference:
        said = "Too few steps to compare: the first 3 are what later ones are compared with."
    elif not marked:
        said = f"No step left the range of the run’s first {reference} steps."
    else:
        said = f"{count(len(marked))} of {count(known)} steps left the range of the first {reference}."
    first = list(marked.items())[:SHOWN_MARKS]
    return {
        "marks_said": said,
        "has_marks": bool(marked),
        "marks": [
            {
                "step": str(step),
                "href": url("analyses", row["analysis"], query={"step": step}),
                "why": "; ".join(words.mark_sentence(mark, row["anchor"], row["evaluated_at"]) for mark in of_step),
            }
            for row in ([analysis] if analysis else [])
            for step, of_step in first
        ],
        "more_marks": f"The first {SHOWN_MARKS} of {count(len(marked))}; the download has all."
        if len(marked) > SHOWN_MARKS
        else "",
        "has_more_marks": len(marked) > SHOWN_MARKS,
    }


def _noise(noise: Row) -> str:
    """What counts as noise of a probability: what the macro _floor says."""
    if noise["tv"] is None:
        return "noise floor, which was not measured and is taken as 10⁻⁴"
    return f"noise floor, a TV of {number(max(noise['tv'], NOISE))}"


def _methods(services: Services, analysis: Row | None, view: RunView) -> Row:
    """Whose drop rates are shown, whose can be, and why others cannot."""
    if analysis is None:
        return {"methods": [], "methods_shown": "", "methods_measured": False, "missing": []}
    found = services.store.lens.table("method_reasons", {"analysis": analysis["analysis"]}).to_pylist()
    own = [f"ppo_{analysis['anchor']}", f"dppo_binary_tv_{analysis['anchor']}"]
    waiting = "not yet: methods are evaluated once every step is scored"
    reasons = {name: None if name in own else waiting for name in METHODS} | {
        row["method"]: row["reason"] for row in found if row["method"] not in own
    }
    wanted = view.methods.split(",") if view.methods else own
    missing = [{"name": name, "reason": reasons[name]} for name in wanted if reasons[name]]
    order = own + [name for name in METHODS if name not in own]
    return {
        "methods": [
            {
                "name": name,
                "title": METHODS[name].title,
                "chosen": name in wanted,
                "reason": reasons[name] or "",
                "disabled": bool(reasons[name]) and name not in wanted,
            }
            for name in order
        ],
        "methods_shown": ", ".join(words.method_labels(wanted).values()),
        "methods_measured": bool(found),
        "missing": missing,
    }


def _page_of_steps(steps: list[Row], marks: pa.Table, analysis: Row | None, run: str, view: RunView) -> Row:
    """The rows of the table of steps from `view.first` on, and where it goes on."""
    marked = set(marks.filter(marks["marked"])["step"].to_pylist())
    start = next((place for place, step in enumerate(steps) if step["step"] >= view.first), 0)
    shown = steps[start : start + SHOWN_STEPS]

    def page(place: int) -> str:
        if not 0 <= place < len(steps):
            return ""
        return url("runs", run, query={**view.chosen, "first": steps[place]["step"]}) + "#c-steps"

    return {
        "steps": [_step(step, analysis, step["step"] in marked) for step in shown],
        "many_steps": len(steps) > SHOWN_STEPS,
        "which_steps": f"{count(start + 1)} to {count(start + len(shown))} of {count(len(steps))} steps.",
        "earlier": page(max(start - SHOWN_STEPS, 0)) if start else "",
        "later": page(start + SHOWN_STEPS),
    }


def _step(step: Row, analysis: Row | None, marked: bool) -> Row:
    known = step["n"] is not None

    def rate(name: str) -> str:
        value = step[name]
        return "–" if value is None else "0" if value == 0 else number(100 * value)

    return {
        "step": str(step["step"]),
        "marked": marked,
        "rollouts": count(step["n_rollouts"]),
        "length": number(step["mean_length"]),
        "reward": number(step["mean_reward"]),
        "improvement": number(step["improvement"]),
        "entropy": number(step["mean_entropy_old"]),
        "topk": rate("mean_topk_mass_old"),
        "mean_dp": number(step["mean_abs_dp"]),
        "q99_dp": number(step["q99_abs_dp"]),
        "max_dp": number(step["max_dp"]),
        "min_dp": number(step["min_dp"]),
        "mismatch": number(step["mean_tv_binary_mismatch"]),
        "bad": percent(step["n_bad_update"], step["n_gradient"]).removesuffix(" %"),
        "ppo_positive": rate("ppo_positive"),
        "dppo_positive": rate("binary_tv_positive"),
        "ppo_negative": rate("ppo_negative"),
        "dppo_negative": rate("binary_tv_negative"),
        "linked": known,
        "unlinked": not known,
        "href": url("analyses", analysis["analysis"], query={"step": step["step"]}) if analysis and known else "",
    }
