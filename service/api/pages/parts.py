"""The parts of the Disagreement page that have a table of their own, each asked for by itself when the view moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from service.api.pages.cells import SLUGS
from service.api.pages.frame import Frame, downloads
from service.api.pages.intervals import intervals
from service.api.pages.trainer import trainer_table
from service.schemas.methods import LIVE, title
from service.schemas.view import DisagreementView
from web import words
from web.numbers import UNKNOWN, count, number, percent, signed
from web.text import visible

__all__ = ["PARTS", "RENDERED"]

Row = dict[str, Any]
RESPONSES = 20
SELECTED = 50


def _names(found: Frame, table: str) -> Row:
    """What every part says: its methods, how near is near, and where its rows can be taken home."""
    at = found.at
    near = {name: found.model[name] for name in ("near_epsilon", "near_delta")}
    return {"first": title(at["first"]), "second": title(at["second"]), **near, **downloads(found, tables=(table,))}


def _bins(found: Frame) -> Row:
    rows, by = found.lens.table("bins", found.at).to_pylist(), found.at["by"]
    unknown = bool(rows) and by == "entropy" and all(row["place"] is None for row in rows)
    return {
        **_names(found, "bins"),
        "binning": words.BINNINGS[by],
        **{
            f"bins_{slug}": [_bin(row, found.at) for row in rows if row["sign"] == sign and not unknown]
            for sign, slug in SLUGS.items()
        },
        "has_bins": bool(rows) and not unknown,
        "no_bins": unknown,
    }


def _bin(row: Row, at: Row) -> Row:
    token = f"“{visible(row['token'], 24)}”" if row["token"] is not None else f"id {row['token_id']}"
    compared = (at["first"], at["second"])
    near = {f"near_{name}": count(row[f"n_near_{name}"]) if name in compared else UNKNOWN for name in LIVE}
    return {
        "bin": words.bin_label(at["by"], row["low"], row["high"], token),
        "n": count(row["n"]),
        "first_share": percent(row["n_first"], row["n"]),
        "second_share": percent(row["n_second"], row["n"]),
        "only_first": count(row["n_only_first"]),
        "only_second": count(row["n_only_second"]),
        "both": count(row["n_both"]),
        "mass": number(row["mass_moved"]),
        **near,
    }


def _responses(found: Frame) -> Row:
    rows = found.lens.table("responses", {**found.at, "limit": RESPONSES, "offset": 0}).to_pylist()
    return {
        **_names(found, "responses"),
        "rollouts": [_response(row, found) for row in rows],
        "has_rollouts": bool(rows),
    }


def _response(row: Row, found: Frame) -> Row:
    return {
        "sample": visible(row["sample_id"], 48),
        "group": visible(row["group_id"], 32),
        "step": str(row["step"]),
        "href": found.response(row["step"], row["sample_id"]),
        "reward": number(row["reward"]),
        "advantage": signed(row["advantage"]),
        "tokens": count(row["n_tokens"]),
        "first_only": count(row["n_only_first"]),
        "second_only": count(row["n_only_second"]),
        "both": count(row["n_both"]),
        "mean_dp": number(row["mean_abs_dp"]),
    }


def _selected(found: Frame) -> Row:
    assert isinstance(found.view, DisagreementView)
    rows = []
    if found.view.brushed:
        rows = found.lens.table("selected", {**found.at, "limit": SELECTED, "offset": 0}).to_pylist()
    return {
        **_names(found, "selected"),
        "brushed": found.view.brushed,
        "selected": [_token(row, found) for row in rows],
    }


def _token(row: Row, found: Frame) -> Row:
    """A selected token as a row that leads to it in its response."""
    at = found.at
    cell = words.cell_slots(at["first"], at["second"]).get(row["cell"], str(row["cell"]))
    return {
        "token": visible(row["token"]) if row["token"] is not None else f"id {row['token_id']}",
        "href": found.response(row["step"], row["sample_id"], row["position"]),
        "sample": visible(row["sample_id"], 32),
        "step": str(row["step"]),
        "position": count(row["position"]),
        "kind": cell,
        "cell": words.cell_name(cell, at["evaluated_at"], (title(at["first"]), title(at["second"]))),
        "p": number(row["p"]),
        "ratio": number(row["ratio"]),
        "divergence": number(row["divergence"]),
        "advantage": signed(row["advantage"]),
    }


def _intervals(found: Frame) -> Row:
    return intervals(found.lens.table("intervals", found.at).to_pylist(), found.at)


RENDERED: dict[str, Callable[[Frame], Row]] = {"bins": _bins, "responses": _responses, "selected": _selected}
"""Those that are on the page from the start."""
PARTS = {**RENDERED, "intervals": _intervals, "trainer": trainer_table}
