"""`/analyses/{id}/approximation`: how far binary and top-K divergences, and their masks, are from the exact ones."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from service.api.pages.frame import Frame, downloads, frame
from service.api.pages.html import live, page
from service.api.state import Services, ServicesDep
from service.api.views.approximation import FIGURES, TABLES
from service.schemas.view import ApproximationView
from web import words
from web.figures.approximation import KINDS, name_of
from web.figures.axes import interval
from web.numbers import UNKNOWN, count, number, percent, plain, share

__all__ = ["router"]

router = APIRouter()

Row = dict[str, Any]
MEASURES = {"tv": "total variation", "kl": "Kullback–Leibler"}
SOURCES = {"sampled": "the sampled token", "topk": "the top-K set"}


@router.get("/analyses/{analysis}/approximation")
def approximation_page(request: Request, analysis: str, services: ServicesDep) -> Response:
    """Masks, divergences and certified intervals against the exact ones of OLD → NEW, and what K is worth."""
    return page(
        request, "approximation.html", m=_model(services, analysis, ApproximationView.of(request.query_params, set()))
    )


@router.get("/analyses/{analysis}/approximation/live")
def approximation_live(request: Request, analysis: str, services: ServicesDep) -> Response:
    """The page's model, for sliders and for steps that land while the page is open."""
    return live(_model(services, analysis, ApproximationView.of(request.query_params, set())))


def _model(services: Services, analysis: str, view: ApproximationView) -> Row:
    found = frame(services, analysis, view, "approximation")
    top_k = found.row["top_k"]
    masses = _rows(found, "topk_mass")
    compared = _rows(found, "top_k_compared") if _other_ks(services, found) else []
    own = (found.at["anchor"], found.at["evaluated_at"])
    other_pair = own not in (("old", "end"), ("old", "start"))
    known = masses[0]["n"] > 0
    intervals = _intervals(found, "certified", "certified_masks") if known else []
    return {
        **found.model,
        **downloads(found, figures=FIGURES, tables=TABLES),
        **_choices(found),
        **_masks(found),
        "pair": "π_old → π: NEW, the policy after the step, measured from OLD, recomputed; the one pair whose exact "
        "divergence is known.",
        "kind": KINDS[found.at["measure"]],
        "top": name_of("topk", top_k),
        "has_exact": known,
        "no_exact": not known,
        "why": _why(found),
        "ratios": _ratios(_rows(found, "approximation_ratios")),
        "intervals": [_interval(row) for row in intervals],
        "other_pair": other_pair,
        "pair_of_view": " → ".join(words.symbols(*own)),
        "pair_intervals": [_interval(row) for row in _intervals(found, "certified_of_view", "certified_masks_of_view")]
        if other_pair
        else [],
        **_mass(masses[0], intervals),
        "k": str(top_k),
        "mode": found.row["topk_mode"],
        "compared": [_compared(row) for row in compared],
        "has_compared": bool(compared),
        "one_k": not compared,
    }


def _rows(found: Frame, name: str) -> list[Row]:
    rows: list[Row] = TABLES[name].rows(found.lens, found.at).to_pylist()
    return rows


def _intervals(found: Frame, widths: str, masks: str) -> list[Row]:
    """Each row of one table with what the other says of the same tokens."""
    decided = {(row["source"], row["sign"]): row for row in _rows(found, masks)}
    return [{**decided[row["source"], row["sign"]], **row} for row in _rows(found, widths)]


def _other_ks(services: Services, found: Frame) -> bool:
    """Whether the run has an analysis with another K, so that comparing is worth a scan."""
    rows = services.store.analyses.of_run(found.row["run_id"])
    return len({(row["top_k"], row["topk_mode"]) for row in rows if row["source"] == "scored"}) > 1


def _choices(found: Frame) -> Row:
    """TV or KL: the view's own divergence stands for its measure, so that links to other pages keep it."""
    estimate, _, chosen = found.at["divergence"].rpartition("_")
    choices = [
        {"value": f"{estimate}_{kind}", "label": label, "disabled": False, "reason": "", "selected": kind == chosen}
        for kind, label in MEASURES.items()
    ]
    return {"options": {**found.model["options"], "divergence": choices}, "reasons": []}


def _why(found: Frame) -> str:
    if found.row["source"] == "logged":
        return (
            "This analysis read the log alone, and a log holds the sampled token and at most lists. Register the "
            "checkpoints before and after the step and analyse with scoring: then all three are known, token by token."
        )
    return "Nothing of this view is scored yet."


def _masks(found: Frame) -> Row:
    """The sentence above the page, and the table of masks at the view's δ."""
    chosen = _rows(found, "approximation_masks")
    drops = {
        estimate: [
            sum(row[name] for row in chosen if row["estimate"] == estimate)
            for name in ("n", "n_both_drop", "n_only_exact_drops", "n_only_estimate_drops")
        ]
        for estimate in ("binary", "topk")
    }
    n, both, missed, _ = drops["binary"]
    return {
        "head.n": count(n),
        "head.exact": count(both + missed),
        "head.exact_share": percent(both + missed, n),
        "head.binary": count(missed),
        "head.topk": count(drops["topk"][2]),
        "has_masks": n > 0,
        "no_gradient": n == 0,
        "masks": [_mask(row, found.row["top_k"]) for row in chosen],
    }


def _mask(row: Row, top_k: int) -> Row:
    exact = row["n_both_drop"] + row["n_only_exact_drops"]
    return {
        "sign": words.SIGNS[row["sign"]],
        "estimate": name_of(row["estimate"], top_k),
        "delta": plain(row["delta"]),
        "n": count(row["n"]),
        "exact": count(exact),
        "both": count(row["n_both_drop"]),
        "missed": count(row["n_only_exact_drops"]),
        "missed_share": percent(row["n_only_exact_drops"], exact),
        "excess": count(row["n_only_estimate_drops"]),
        "agreement": percent(row["n_both_keep"] + row["n_both_drop"], row["n"]),
        "kappa": number(row["kappa"]),
        "near": count(row["n_near"]),
    }


def _ratios(rows: list[Row]) -> list[Row]:
    """One row a bin, both estimates side by side; the row of all tokens is the last."""
    bins = sorted({(row["p_low"], row["p_high"]) for row in rows}, key=lambda edges: (edges[0] is None, edges))
    found = []
    for low, high in bins:
        of = {row["estimate"]: row for row in rows if (row["p_low"], row["p_high"]) == (low, high)}
        found.append(
            {
                "bin": "all" if low is None else interval(low, high),
                "n": count(of["binary"]["n"]),
                **{
                    f"{estimate}_{name}": share(row[name])
                    for estimate, row in of.items()
                    for name in ("q05", "q50", "q95", "of_sums")
                },
            }
        )
    return found


def _interval(row: Row) -> Row:
    open_tokens = row["n_toward"] + row["n_drops"] + row["n_keeps"] + row["n_undecided"]
    return {
        "source": SOURCES[row["source"]],
        "sign": "all" if row["sign"] is None else words.SIGNS[row["sign"]],
        "n": count(row["n"]),
        "coverage": percent(row["n_covered"], row["n_exact"]),
        "excess": number(row["excess"]),
        "width": number(row["mean_width"]),
        "toward": count(row["n_toward"]),
        "drops": count(row["n_drops"]),
        "keeps": count(row["n_keeps"]),
        "undecided": count(row["n_undecided"]),
        "decided_share": percent(open_tokens - row["n_undecided"], open_tokens),
    }


def _mass(whole: Row, intervals: list[Row]) -> Row:
    """What the top-K set holds, and what the rest allows against what it does."""
    undecided = [row for row in intervals if row["source"] == "topk" and row["sign"] is None]
    return {
        "mass.old": share(whole["mean_mass_old"]),
        "mass.new": share(whole["mean_mass_new"]),
        "mass.below": share(whole["share_below_99"]),
        "mass.bound": number(whole["mean_bound"]),
        "mass.gap": number(whole["mean_gap"]),
        "mass.max_gap": number(whole["max_gap"]),
        "mass.undecided": count(undecided[0]["n_undecided"]) if undecided else UNKNOWN,
    }


def _compared(row: Row) -> Row:
    return {
        "k": f"{row['top_k']} ({row['topk_mode']})",
        "n": count(row["n"]),
        "mass": share(row["mean_mass_old"]),
        "bound": number(row["mean_bound"]),
        "gap": number(row["mean_gap"]),
        "exact": count(row["n_exact_drops"]),
        "missed": count(row["n_only_exact_drops"]),
        "undecided": count(row["n_undecided"]),
        "undecided_share": percent(row["n_undecided"], row["n_gradient"]),
    }
