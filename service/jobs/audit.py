"""The audit of logged log-probs before a step is scored: what to look at, and in words what the worker found."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from service.errors import Invalid
from service.process import Message
from service.schemas.findings import Finding
from service.store.catalog import Row
from service.store.store import Store

__all__ = ["Audit", "audited"]

SOURCE = "audit"
RESPONSES = 4
LISTS = ("old_logprobs", "rollout_logprobs")

Ask = Callable[[Message], Message]
Verified = Callable[[Row], Message]


class Audit:
    """One audit: a step's log against `old`, the checkpoint that the step is about to be scored with."""

    def __init__(self, store: Store, run: Row, step: Row, old: Row) -> None:
        self._store, self._run, self._step, self._old = store, run, step["step"], old

    def run(self, task: Message, beside: dict[int, Row], verified: Verified, ask: Ask) -> None:
        """Ask the worker, on a few responses, and keep what it finds with their uploads.

        task: the step's scoring task; beside: the checkpoints of the steps before and after.
        """
        sample_ids, uploads = _excerpt(task["pieces"])
        if not sample_ids:
            return
        names = ("temperature", "top_p", "top_k", "logprobs_mode")
        question = {
            **task,
            "task": "audit",
            "sample_ids": sample_ids,
            "neighbours": list(self._usable(beside, verified)),
            "sampling": {name: self._run[name] for name in names},
        }
        self._store.uploads.replace_findings(uploads, self._findings(ask(question)))

    def _usable(self, beside: dict[int, Row], verified: Verified) -> Iterator[tuple[int, Message]]:
        """What can be compared with; a checkpoint that the analysis does not need may be gone."""
        for step, checkpoint in beside.items():
            if checkpoint["vocab_size"] == self._old["vocab_size"]:
                with suppress(Invalid):
                    yield step, verified(checkpoint)

    def _findings(self, result: Message) -> list[Finding]:
        """A warning for each doubt, and a note that says what was compared.

        `decided` of the note: the lists of which is now known whether they are what the run says.
        """
        found, decided = [], []
        for fit in result["lists"]:
            words = {**self._run, **fit, "path": self._old["path"]}
            codes = {doubt["code"] for doubt in fit["doubts"]}
            if fit["enough"] and "logprobs_do_not_fit" not in codes:
                decided.append(fit["list"])
            for doubt in fit["doubts"]:
                message = WORDS[doubt["code"]]({**words, **doubt})
                found.append(self._finding("warning", doubt["code"], message, doubt["count"], doubt["examples"]))
        message = (
            f"audited against checkpoint {self._old['checkpoint']} on {result['tokens']} tokens of "
            f"{result['responses']} responses: {'; '.join(map(_fit, result['lists']))}"
        )
        return [*found, self._finding("note", "audited", message, result["tokens"], [], decided=decided)]

    def _finding(
        self, level: str, code: str, message: str, count: int, examples: list[Message], **more: Any
    ) -> Finding:
        return {
            "level": level,
            "code": code,
            "message": f"step {self._step}: {message}",
            "count": count,
            "examples": [{"step": self._step, **example} for example in examples],
            "source": SOURCE,
            "step": self._step,
            "checkpoint": self._old["checkpoint"],
            **more,
        }


def audited(store: Store, run_id: str, steps: list[Row]) -> list[Finding]:
    """What audits of these steps under their OLD checkpoints found, now or when they were scored."""
    wanted = {(step["step"], step["old_checkpoint"]) for step in steps}
    found: dict[str, Finding] = {}
    for upload in store.uploads.of_run(run_id):
        for finding in json.loads(upload["warnings"]):
            if finding.get("source") == SOURCE and (finding["step"], finding["checkpoint"]) in wanted:
                found[finding["message"]] = finding
    return list(found.values())


def _excerpt(pieces: list[str]) -> tuple[list[str], list[str]]:
    """A few sample ids that carry log-probs, spread over the first piece that has any, and the uploads they are of."""
    for piece in pieces:
        table = pq.read_table(piece, partitioning=None, columns=["sample_id", "upload", "counted_tokens", *LISTS])
        logged = pc.or_(*(pc.is_valid(table[name]) for name in LISTS))
        table = table.filter(pc.and_(logged, pc.greater(table["counted_tokens"], 0)))
        if table.num_rows:
            taken = min(RESPONSES, table.num_rows)
            chosen = table.take([at * table.num_rows // taken for at in range(taken)])
            return chosen["sample_id"].to_pylist(), sorted(set(chosen["upload"].to_pylist()))
    return [], []


def _fit(fit: Message) -> str:
    if not fit["n"]:
        return f"{fit['list']} have no token that tells one policy from another"
    return (
        f"{fit['list']} median |Δ log-prob| {fit['median']:.2g}, slope {fit['slope']:.3f}, correlation "
        f"{fit['correlation']:.3f} on the {fit['n']} tokens that are not nearly certain"
    )


def _against(x: dict[str, Any]) -> str:
    return f"(median |Δ log-prob| {x['median']:.2g} against {x['claimed']:.2g})"


def _off_by_one(x: dict[str, Any]) -> str:
    stale = ", or did an earlier policy sample these responses, as in asynchronous training?"
    return (
        f"the log's {x['list']} fit the checkpoint registered for step {x['fits_step']} better {_against(x)}; "
        "checkpoints name the policy before their step: was `--after` meant"
        + (stale if x["list"] == "rollout_logprobs" else "?")
    )


def _shifted(x: dict[str, Any]) -> str:
    before, here, after = x["medians"]
    return (
        f"{x['list']} are shifted: the entry {'after' if x['by'] > 0 else 'before'} a token's fits it best (median "
        f"|Δ log-prob| {before:.2g} for the entry before, {here:.2g} for its own, {after:.2g} for the one after)"
    )


def _raw(x: dict[str, Any]) -> str:
    return (
        f"{x['list']} are raw log-probs: they fit temperature 1 better than the run's {x['temperature']:g} "
        f"{_against(x)}. Raw log-probs are not the distribution that sampled: give the run sampling.logprobs_mode raw"
    )


def _processed(x: dict[str, Any]) -> str:
    return (
        f"{x['list']} have the temperature applied although the run says raw: they fit {x['temperature']:g} better "
        f"than 1 {_against(x)}. Give the run sampling.logprobs_mode processed, and they can be the anchor"
    )


def _temperature(x: dict[str, Any]) -> str:
    other = "" if x["top_p"] < 1 or x["top_k"] > 1 else ", or truncated sampling that the run does not name"
    return (
        f"{x['list']} fit a temperature of about {x['temperature']:.2f} better than {x['stated']:g} {_against(x)}: "
        f"another sampling temperature than the run's{other}?"
    )


def _renormalised(x: dict[str, Any]) -> str:
    return (
        f"{x['list']} are those of a nucleus: renormalised within top_p {x['top_p']:g}, top_k {x['top_k']} the "
        f"checkpoint fits them better {_against(x)}, so that part of the mismatch is truncation"
    )


def _do_not_fit(x: dict[str, Any]) -> str:
    return (
        f"{x['list']} do not fit checkpoint {x['path']} at any temperature: median |Δ log-prob| {x['median']:.2g} "
        f"nats, correlation {x['correlation']:.2f}. Another checkpoint, tokenizer or model?"
    )


WORDS: dict[str, Callable[[dict[str, Any]], str]] = {
    "checkpoint_off_by_one": _off_by_one,
    "shifted_logprobs": _shifted,
    "raw_logprobs": _raw,
    "processed_logprobs": _processed,
    "temperature": _temperature,
    "renormalised_nucleus": _renormalised,
    "logprobs_do_not_fit": _do_not_fit,
}
