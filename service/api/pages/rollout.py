"""`/analyses/{id}/rollout`: one response, each token marked by what PPO and DPPO would do to it."""

from __future__ import annotations

import json
from collections import Counter
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from service.api.pages.analysis import about
from service.api.pages.html import live, page, url
from service.api.pages.token import token_model
from service.api.state import Services, ServicesDep
from service.errors import Invalid, NotFound
from service.schemas.view import View
from web import words
from web.numbers import count, number, signed
from web.text import pieces, visible

__all__ = ["router"]

router = APIRouter()

Row = dict[str, Any]
OWN = {"sample_id", "at", "first", "limit"}  # of the query string, besides the view
KINDS = ("ppo_only_drops", "dppo_only_drops", "both_drop", "both_keep", "no_gradient", "unknown", "masked")
BLOCK = 512


@router.get("/analyses/{analysis}/rollout")
def rollout_page(
    request: Request,
    analysis: str,
    services: ServicesDep,
    sample_id: str,
    at: Annotated[int | None, Query(ge=0)] = None,
) -> Response:
    """The text of one response, its tokens' decisions, and every number of the token `at`."""
    view = _view(request)
    row, parameters, tokens = _load(services, analysis, view, sample_id)
    (rollout,) = services.store.lens.table("rollout", parameters).to_pylist()
    (known,) = services.store.lens.table("availability", parameters).to_pylist()
    steps = services.store.analyses.steps(analysis)
    chosen = at if at is not None and at < len(tokens) else _first_of_interest(tokens)
    query = view.chosen
    model = {
        **about(row, steps, view, parameters, known),
        "analysis_href": url("analyses", analysis, query=query),
        "path": url("analyses", analysis, "rollout", query={**query, "sample_id": sample_id}),
        "blocks": url("analyses", analysis, "rollout", "tokens", query={**query, "sample_id": sample_id}),
        "strip": url("api", "v1", "analyses", analysis, "figures", "strip", query={**query, "sample_id": sample_id}),
        "tokens_json": url("api", "v1", "analyses", analysis, "tokens", query={**query, "sample_id": sample_id}),
        "block": BLOCK,
        "sample": visible(sample_id, 120),
        "facts": _facts(rollout),
        "at": chosen,
        "prompt": rollout["prompt_text"],
        "response": rollout["response_text"],
        "prompt_tokens": count(rollout["prompt_tokens"]),
        "decoded": any(token["token"] is not None for token in tokens),
        "tokens": [_span(token, parameters["evaluated_at"]) for token in tokens],
        "legend": _legend(tokens, parameters["evaluated_at"]),
        "panel": token_model(tokens[chosen], parameters) if tokens else None,
        **_neighbours(services, analysis, parameters, view),
    }
    return page(request, "rollout.html", m=model)


@router.get("/analyses/{analysis}/rollout/tokens")
def rollout_tokens(
    request: Request,
    analysis: str,
    services: ServicesDep,
    sample_id: str,
    first: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=BLOCK)] = BLOCK,
) -> Response:
    """What the panel shows, for a block of tokens."""
    _, parameters, tokens = _load(services, analysis, _view(request), sample_id)
    return live([token_model(token, parameters) for token in tokens[first : first + limit]])


def _view(request: Request) -> View:
    view = View.of(request.query_params, OWN)
    if view.step is None:
        raise Invalid("a response is named by step and sample_id; step is missing")
    return view


def _load(services: Services, analysis: str, view: View, sample_id: str) -> tuple[Row, Row, list[Row]]:
    row = services.store.analyses.get(analysis)
    parameters = {**view.parameters(row), "sample_id": sample_id}
    tokens = services.store.lens.table("tokens", parameters).to_pylist()
    if not tokens:
        raise NotFound(f"analysis {analysis} has no sample {sample_id!r} in step {view.step}, or not yet")
    return row, parameters, tokens


def _kind(token: Row) -> str:
    return str(token["cell"] or "masked")


def _first_of_interest(tokens: list[Row]) -> int:
    disputed = (place for place, token in enumerate(tokens) if _kind(token) in KINDS[:2])
    return next(disputed, 0)


def _span(token: Row, evaluated_at: str) -> Row:
    shown = token["token"] if token["token"] is not None else f"⟨{token['token_id']}⟩"
    kind = _kind(token)
    return {
        "position": token["position"],
        "kind": kind,
        "pieces": pieces(shown),
        "name": "" if shown.strip() else visible(shown) or "empty",
        "label": "" if kind in ("both_keep", "no_gradient", "masked") else words.cell_name(kind, evaluated_at),
    }


def _legend(tokens: list[Row], evaluated_at: str) -> list[Row]:
    counts = Counter(_kind(token) for token in tokens)
    return [
        {"kind": kind, "name": words.cell_name(kind, evaluated_at), "n": count(counts[kind]), "any": counts[kind] > 0}
        for kind in KINDS
        if counts[kind] or kind in KINDS[:3]
    ]


def _facts(rollout: Row) -> list[Row]:
    facts = {
        "Reward": number(rollout["reward"]),
        "Advantage": signed(rollout["advantage"]),
        "Response tokens": count(rollout["response_tokens"]),
        "Counted": count(rollout["counted_tokens"]),
        "Group": visible(rollout["group_id"], 40),
        "Finished": visible(rollout["finish_reason"] or "–", 40),
    }
    if json.loads(rollout["meta"] or "{}").get("approximate_token_ids"):
        facts["Token ids"] = "approximate: made from text"
    if rollout["policy_version"] is not None:
        facts["Policy version"] = str(rollout["policy_version"])
    return [{"name": name, "value": value} for name, value in facts.items()]


def _neighbours(services: Services, analysis: str, parameters: Row, view: View) -> Row:
    rows = services.store.lens.table("neighbours", parameters).to_pylist()
    found: Row = {}
    for side in ("previous", "next"):
        if not rows or rows[0][f"{side}_sample"] is None:
            found[side] = ""
            continue
        query = {**view.chosen, "step": rows[0][f"{side}_step"], "sample_id": rows[0][f"{side}_sample"]}
        found[side] = url("analyses", analysis, "rollout", query=query)
    return found
