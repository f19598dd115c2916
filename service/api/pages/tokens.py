"""`/analyses/{id}/tokens`: which tokens are dropped most, how likely they were, and where one of them stands."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from service.api.pages.clipped import summary
from service.api.pages.frame import Frame, downloads, frame
from service.api.pages.html import live, page
from service.api.state import Services, ServicesDep
from service.api.views.tokens import PAGE
from service.schemas.view import TokensView
from web import words
from web.numbers import count, number, percent, signed
from web.text import visible

__all__ = ["router"]

router = APIRouter()

Row = dict[str, Any]
ORDERS = {"count": "how many are dropped", "enrichment": "enrichment over the base rate"}
AROUND = 44  # characters of context on either side


@router.get("/analyses/{analysis}/tokens")
def tokens_page(request: Request, analysis: str, services: ServicesDep) -> Response:
    """What is clipped against all tokens, the most clipped ones, and the places of the chosen one."""
    return page(request, "tokens.html", m=_model(services, analysis, TokensView.of(request.query_params, set())))


@router.get("/analyses/{analysis}/tokens/live")
def tokens_live(request: Request, analysis: str, services: ServicesDep) -> Response:
    """The page's model, for controls, the search, and steps that land while the page is open."""
    return live(_model(services, analysis, TokensView.of(request.query_params, set())))


def _model(services: Services, analysis: str, view: TokensView) -> Row:
    found = frame(services, analysis, view, "tokens")
    rows = found.lens.table("most_clipped", {**found.at, "limit": PAGE, "offset": view.first}).to_pylist()
    cells = found.lens.table("clipped_summary", found.at).to_pylist()
    return {
        **found.model,
        **_choices(found.model, view),
        **summary(cells, found.at),
        **_list(rows, view, found),
        **_places(view, found),
        **downloads(
            found,
            figures=("most_clipped", "clipped_probability"),
            tables=("clipped_summary", "most_clipped", "token_places"),
        ),
    }


def _choices(model: Row, view: TokensView) -> Row:
    """The page's own controls, beside those of every page."""

    def options(labels: dict[str, str], chosen: str) -> list[Row]:
        return [
            {"value": value, "label": label, "selected": value == chosen, "disabled": False, "reason": ""}
            for value, label in labels.items()
        ]

    return {
        "q": view.q or "",
        "least": view.least,
        "by_enrichment": view.order == "enrichment",
        "how": ""
        if view.order == "count"
        else f"The lower end of the enrichment decides, among tokens that occur at least {count(view.least)} times, so "
        "that rare ones do not win by chance.",
        "options": {
            **model["options"],
            "method": options({"ppo": "PPO", "dppo": "DPPO", "disputed": "only one of the two"}, view.method),
            "order": options(ORDERS, view.order),
            "cased": options({"": "any case", "1": "as typed"}, view.cased or ""),
        },
        "defaults": {**model["defaults"], "method": "ppo", "order": "count", "cased": ""},
    }


def _list(rows: list[Row], view: TokensView, found: Frame) -> Row:
    """A page of the most clipped tokens, and the ways to the others."""
    whole = rows[0]["n_rows"] if rows else 0
    last = view.first + len(rows)
    same = view.model_copy(update={"token_id": None, "place": 0}).chosen
    return {
        "rows": [_token(row, found, same) for row in rows],
        "has_rows": bool(rows),
        "nothing_found": not rows and view.q is not None,
        "nothing_to_rank": not rows and view.q is None,
        "range": f"{count(view.first + 1)}–{count(last)} of {count(whole)}" if rows else "",
        "ranked": f"{words.METHODS[view.method]}, by {ORDERS[view.order]}",
        "earlier": found.href("tokens", **{**same, "first": max(0, view.first - PAGE) or None}) if view.first else "",
        "later": found.href("tokens", **{**same, "first": last}) if last < whole else "",
    }


def _token(row: Row, found: Frame, same: Row) -> Row:
    return {
        "token": _shown(row),
        "id": str(row["token_id"]),
        "sign": words.SIGNS[row["sign"]],
        "n": count(row["n"]),
        **{name: count(row[f"n_{name}"]) for name in ("ppo", "dppo", "disputed")},
        **{f"{name}_share": percent(row[f"n_{name}"], row["n"]) for name in ("ppo", "dppo")},
        "rate": f"{number(100 * row['rate_low'])}–{number(100 * row['rate_high'])} %",
        "enrichment": f"×{number(row['enrichment'])}" if row["base_rate"] else number(None),
        "between": f"{number(row['enrichment_low'])}–{number(row['enrichment_high'])}" if row["base_rate"] else "",
        "p": number(row["mean_p"]),
        "p_dropped": number(row["mean_p_dropped"]),
        "entropy": number(row["mean_entropy"]),
        "prompts": count(row["n_prompts"]),
        "near": count(row["n_near"]),
        "href": found.href("tokens", **{**same, "token_id": row["token_id"]}),
    }


def _places(view: TokensView, found: Frame) -> Row:
    """Where the chosen token stands, what the method drops first."""
    if view.token_id is None:
        return {"has_places": False, "places": [], "places_range": "", "places_of": "", **_turn("", "")}
    rows = found.lens.table("token_places", {**found.at, "limit": PAGE, "offset": view.place}).to_pylist()
    whole = rows[0]["n_rows"] if rows else 0
    last = view.place + len(rows)
    here = view.chosen
    return {
        "has_places": True,
        "places": [_place(row, found) for row in rows],
        "places_range": f"{count(view.place + 1)}–{count(last)} of {count(whole)}" if rows else "nowhere in this view",
        "places_of": f"{_shown(rows[0])} (id {view.token_id})" if rows else f"id {view.token_id}",
        **_turn(
            found.href("tokens", **{**here, "place": max(0, view.place - PAGE) or None}) if view.place else "",
            found.href("tokens", **{**here, "place": last}) if last < whole else "",
        ),
    }


def _turn(earlier: str, later: str) -> Row:
    return {"places_earlier": earlier, "places_later": later}


def _place(row: Row, found: Frame) -> Row:
    return {
        "step": str(row["step"]),
        "sample": visible(row["sample_id"], 40),
        "position": count(row["position"]),
        "href": found.response(row["step"], row["sample_id"], row["position"]),
        "before": visible((row["before"] or "")[-AROUND:], AROUND),
        "token": _shown(row),
        "after": visible((row["after"] or "")[:AROUND], AROUND),
        "kind": row["cell"],
        "verdict": words.cell_name(row["cell"], found.at["evaluated_at"]),
        "ratio": number(row["ratio"]),
        "divergence": number(row["divergence"]),
        "advantage": signed(row["advantage"]),
        "p": number(row["p"]),
    }


def _shown(row: Row) -> str:
    return visible(row["token"], 40) if row["token"] is not None else f"⟨{row['token_id']}⟩"
