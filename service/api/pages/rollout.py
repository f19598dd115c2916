"""`/analyses/{id}/rollout`: one response, each token marked by what PPO and DPPO would do to it."""

from __future__ import annotations

import json
from collections import Counter
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from service.api.pages.frame import Frame, downloads, frame
from service.api.pages.html import live, page, url
from service.api.pages.token import token_model
from service.api.state import ServicesDep
from service.errors import NotFound
from service.schemas.view import ResponseView
from service.store.lens import Lens
from web import words
from web.numbers import count, number, signed
from web.text import pieces, visible

__all__ = ["router"]

router = APIRouter()

Row = dict[str, Any]
OWN = {"at", "first", "limit"}  # of the query string, besides the view
KINDS = ("ppo_only_drops", "dppo_only_drops", "both_drop", "both_keep", "no_gradient", "unknown", "masked")
BLOCK = 512


@router.get("/analyses/{analysis}/rollout")
def rollout_page(
    request: Request, analysis: str, services: ServicesDep, at: Annotated[int | None, Query(ge=0)] = None
) -> Response:
    """The text of one response, its tokens' decisions, and every number of the token `at`."""
    found = frame(services, analysis, ResponseView.of(request.query_params, OWN), "")
    tokens = _tokens(found.lens, found.at)
    (rollout,) = found.lens.table("rollout", found.at).to_pylist()
    chosen = at if at is not None and at < len(tokens) else _first_of_interest(tokens)
    query = found.view.chosen
    model = {
        **found.model,
        **downloads(found, figures=("strip",)),
        "figure.strip": url("api", "v1", "analyses", analysis, "figures", "strip", query=query),
        "analysis_href": found.href(),
        "path": found.href("rollout", **query),
        "blocks": found.href("rollout", "tokens", **query),
        "block": BLOCK,
        "sample": visible(found.at["sample_id"], 120),
        "facts": _facts(rollout),
        "at": chosen,
        "prompt": rollout["prompt_text"],
        "response": rollout["response_text"],
        "prompt_tokens": count(rollout["prompt_tokens"]),
        "decoded": any(token["token"] is not None for token in tokens),
        "tokens": [_span(token, found.at["evaluated_at"]) for token in tokens],
        "legend": _legend(tokens, found.at["evaluated_at"]),
        "panel": token_model(tokens[chosen], found.at) if tokens else None,
        **_neighbours(found),
    }
    return page(request, "rollout.html", m=model)


@router.get("/analyses/{analysis}/rollout/tokens")
def rollout_tokens(
    request: Request,
    analysis: str,
    services: ServicesDep,
    first: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=BLOCK)] = BLOCK,
) -> Response:
    """What the panel shows, for a block of tokens."""
    parameters = ResponseView.of(request.query_params, OWN).parameters(services.store.analyses.get(analysis))
    tokens = _tokens(services.store.lens, parameters)
    return live([token_model(token, parameters) for token in tokens[first : first + limit]])


def _tokens(lens: Lens, at: Row) -> list[Row]:
    tokens: list[Row] = lens.table("tokens", at).to_pylist()
    if not tokens:
        raise NotFound(f"analysis {at['analysis']} has no sample {at['sample_id']!r} in step {at['step']}, or not yet")
    return tokens


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


def _neighbours(found: Frame) -> Row:
    rows = found.lens.table("neighbours", found.at).to_pylist()
    return {
        side: found.response(rows[0][f"{side}_step"], rows[0][f"{side}_sample"])
        if rows and rows[0][f"{side}_sample"] is not None
        else ""
        for side in ("previous", "next")
    }
