"""`/analyses/{id}/rollout`: one response, its tokens marked by what PPO and DPPO would do to them."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from starlette.responses import PlainTextResponse

from service.api.pages.frame import Frame, downloads, frame
from service.api.pages.html import live, page, url
from service.api.pages.metrics import choices, scale
from service.api.pages.reading import BLOCK, WINDOW, first_of_interest, kinds_of, legend, spans, window
from service.api.pages.siblings import siblings, turns
from service.api.pages.token import token_model
from service.api.state import ServicesDep
from service.errors import NotFound
from service.schemas.view import ReaderView
from web.numbers import count, number, signed
from web.text import visible

__all__ = ["router"]

router = APIRouter()

Row = dict[str, Any]
PANELS = 64  # tokens whose panels are sent at once
First = Annotated[int, Query(ge=0, lt=2**32)]


@router.get("/analyses/{analysis}/rollout")
def rollout_page(request: Request, analysis: str, services: ServicesDep) -> Response:
    """The text of one response, its tokens' decisions, and every number of the token `at`."""
    view = ReaderView.of(request.query_params, set())
    found = frame(services, analysis, view, "rollout")
    kinds = kinds_of(found.lens, found.at)
    chosen = view.at if view.at is not None and view.at < len(kinds) else first_of_interest(kinds)
    at = {**found.at, "at": chosen}
    (rollout,) = found.lens.table("rollout", at).to_pylist()
    (token,) = found.lens.table("token", at).to_pylist()
    colours = scale(found)
    others = siblings(found)
    model = {
        **found.model,
        **downloads(found, figures=("strip",), tables=("siblings", "turns")),
        **_addresses(found),
        **_text(found, found.at, kinds, chosen, colours["reach"]),
        **turns(found),
        **others,
        "metrics": choices(found),
        "colours": colours,
        "metric": view.metric,
        "sample": visible(view.sample_id, 120),
        "facts": _facts(rollout),
        "at": chosen,
        "prompt": rollout["prompt_text"],
        "response": rollout["response_text"],
        "prompt_tokens": count(rollout["prompt_tokens"]),
        "decoded": token["token"] is not None,
        "panel": token_model(token, found.at),
        "beside": _beside(found, others, colours["reach"]),
        **_neighbours(found),
    }
    return page(request, "rollout.html", m=model)


@router.get("/analyses/{analysis}/rollout/block")
def rollout_block(
    request: Request,
    analysis: str,
    services: ServicesDep,
    first: First,
    size: First,
    prefix: Literal["t", "b"] = "t",
    reach: float | None = None,
) -> Response:
    """The next `BLOCK` tokens, from `first`, of a response of `size` tokens, as they stand on its page."""
    view = ReaderView.of(request.query_params, {"first", "size", "prefix", "reach"})
    at = view.parameters(services.store.analyses.get(analysis))
    tokens = spans(services.store.lens, at, first, first + BLOCK, reach)
    return page(request, "block.html", tokens=tokens, prefix=prefix, size=size)


@router.get("/analyses/{analysis}/rollout/tokens")
def rollout_tokens(
    request: Request,
    analysis: str,
    services: ServicesDep,
    first: First = 0,
    limit: Annotated[int, Query(ge=1, le=WINDOW)] = PANELS,
) -> Response:
    """What the panel shows, for a block of tokens."""
    view = ReaderView.of(request.query_params, {"first", "limit"})
    at = view.parameters(services.store.analyses.get(analysis))
    rows = services.store.lens.table("stretch", {**at, "first": first, "last": first + limit - 1, "reach": None})
    return live([token_model(token, at) for token in rows.to_pylist()])


@router.get("/analyses/{analysis}/rollout/text")
def rollout_text(request: Request, analysis: str, services: ServicesDep) -> Response:
    """The response as the model wrote it, to copy."""
    view = ReaderView.of(request.query_params, set())
    at = view.parameters(services.store.analyses.get(analysis))
    (row,) = services.store.lens.table("response_text", at).to_pylist()
    if row["text"] is None:
        raise NotFound(f"analysis {analysis} has no sample {view.sample_id!r} in step {view.step}, or not yet")
    return PlainTextResponse(row["text"])


def _addresses(found: Frame) -> Row:
    """Where the page and its parts are: the view without the token in hand."""
    query = {name: value for name, value in found.view.chosen.items() if name != "at"}
    alone = {name: value for name, value in query.items() if name != "beside"}
    analysis = found.row["analysis"]
    return {
        "analysis_href": found.href(),
        "reader": url("analyses", analysis, "rollout"),
        "query": query,
        "path": found.href("rollout", **query),
        "panels": PANELS,
        "panel_rows": found.href("rollout", "tokens", **alone),
        "text_from": found.href("rollout", "text", **alone),
        "token_from": url("api", "v1", "analyses", analysis, "tables", "token", query=alone),
        "figure.strip": url("api", "v1", "analyses", analysis, "figures", "strip", query=alone),
    }


def _text(found: Frame, at: Row, kinds: str, chosen: int, reach: float | None) -> Row:
    """The stretch of the response that is on the page at first, and where the rest is had from."""
    first, last = window(chosen, len(kinds))
    query = {name: value for name, value in found.view.chosen.items() if name not in ("at", "beside", "sample_id")}
    shown = found.href("rollout", **{**query, "sample_id": at["sample_id"]})
    return {
        "kinds": kinds,
        "first": first,
        "last": last,
        "size": len(kinds),
        "size_text": count(len(kinds)),
        "tokens": spans(found.lens, at, first, last, reach),
        "legend": legend(kinds, at["evaluated_at"]),
        "blocks": found.href(
            "rollout", "block", **{**query, "sample_id": at["sample_id"], "reach": reach, "size": len(kinds)}
        ),
        "earlier": f"{shown}&at={first - 1}" if first else "",
        "later": f"{shown}&at={last}" if last < len(kinds) else "",
    }


def _beside(found: Frame, others: Row, reach: float | None) -> Row | None:
    """The response that stands beside this one."""
    sample = found.at["beside"]
    if sample is None:
        return None
    known = [row for row in others["siblings"] if row["sample_id"] == sample]
    if not known:
        raise NotFound(f"{sample!r} is not a response to the same prompt in step {found.at['step']}")
    at = {**found.at, "sample_id": sample}
    kinds = kinds_of(found.lens, at)
    swapped = found.view.model_copy(update={"sample_id": sample, "beside": found.at["sample_id"], "at": None}).chosen
    alone = found.view.model_copy(update={"beside": None}).chosen
    return {
        **known[0],
        **_text(found, at, kinds, 0, reach),
        "swap": found.href("rollout", **swapped),
        "close": found.href("rollout", **{**alone, "beside": None}),
    }


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
    kept = {} if found.view.chosen.get("metric") is None else {"metric": found.at["metric"]}
    return {
        side: found.href("rollout", step=rows[0][f"{side}_step"], sample_id=rows[0][f"{side}_sample"], **kept)
        if rows and rows[0][f"{side}_sample"] is not None
        else ""
        for side in ("previous", "next")
    }
