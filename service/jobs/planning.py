"""From a request for an analysis to the scorings it needs. Nothing is computed here, and nothing is guessed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from service.errors import FieldError, Invalid
from service.ids import content_id
from service.schemas.requests import CreateAnalysis, EvaluatedAt
from service.store.catalog import Row, as_json
from service.store.runs import now
from service.store.store import Store

__all__ = ["CODE_VERSION", "Plan", "plan"]

CODE_VERSION = 3  # part of every scoring's id; raise it when the numbers of a segment would change


Pair = tuple[Row | None, Row | None]
NO_PAIR: Pair = (None, None)


@dataclass(frozen=True)
class Plan:
    """An analysis row, its steps (scoring, inputs, checkpoints, span) and what had to be left out."""

    analysis: Row
    steps: list[Row]
    skipped: list[dict[str, Any]]


def plan(store: Store, run: Row, request: CreateAnalysis, default_dtype: str) -> Plan:
    """Resolve defaults and pairs. Raises `Invalid` naming the field that cannot be met."""
    available = store.uploads.steps(run["run_id"])
    if not available:
        raise _invalid("steps", f"run {run['run']!r} has no rollouts yet; upload some first")
    wanted = sorted(set(request.steps)) if request.steps is not None else sorted(available)
    missing = [step for step in wanted if step not in available]
    if missing:
        raise _invalid("steps", f"no rollouts for step {_listed(missing)}; there are {_listed(sorted(available))}")
    if request.source == "logged":
        pairs, skipped = dict.fromkeys(wanted, NO_PAIR), list[dict[str, Any]]()
    else:
        pairs, skipped = _pairs(store, run, request, wanted)
    columns = _logged_columns(available, list(pairs))
    anchored = not (run["logprobs_mode"] == "raw" and run["temperature"] != 1.0)
    evaluated_at = request.evaluated_at or _point(request, columns)
    anchor = request.anchor or ("rollout" if "rollout_logprobs" in columns and anchored else "old")
    _check_inputs(request, anchor, evaluated_at, columns, anchored=anchored)

    dtype = request.dtype or default_dtype
    steps = []
    for step, (old, new) in pairs.items():
        inputs = {
            "run": run["run_id"],
            "step": step,
            "content": available[step]["content"],
            "old": old and old["fingerprint"],
            "new": new and new["fingerprint"],
            "temperature": run["temperature"],
            "top_k": request.top_k,
            "topk_mode": request.topk_mode,
            "dtype": dtype,
            "source": request.source,
            "anchored": anchored,
            "tokenizer": run["tokenizer"],
            "code": CODE_VERSION,
        }
        steps.append(
            {
                "step": step,
                "scoring": content_id("x", inputs),
                "inputs": inputs,
                "old_checkpoint": old and old["checkpoint"],
                "new_checkpoint": new and new["checkpoint"],
                "span": None if old is None or new is None else new["step"] - old["step"],
            }
        )
    facts = {
        "run_id": run["run_id"],
        "source": request.source,
        "anchor": anchor,
        "evaluated_at": evaluated_at,
        **asdict(request.thresholds.resolve()),
        "top_k": request.top_k,
        "topk_mode": request.topk_mode,
        "dtype": dtype,
    }
    identity = content_id("a", [facts, [[step["step"], step["scoring"]] for step in steps]])
    analysis = {
        "analysis": identity,
        "created_at": now(),
        **facts,
        "stale": False,
        "warnings": "[]",
        "skipped_steps": as_json(skipped),
    }
    return Plan(analysis, steps, skipped)


def _pairs(
    store: Store, run: Row, request: CreateAnalysis, wanted: list[int]
) -> tuple[dict[int, Pair], list[dict[str, Any]]]:
    """OLD = the policy before the step, NEW = the policy after it, unless a pair is given."""
    if (request.old is None) != (request.new is None):
        raise _invalid("new" if request.new is None else "old", "a pair needs both old and new")
    if request.old is not None and request.new is not None:
        if request.steps is None or len(wanted) != 1:
            raise _invalid("steps", "a given pair needs exactly one step")
        old, new = store.checkpoints.get(request.old), store.checkpoints.get(request.new)
        for field, checkpoint in (("old", old), ("new", new)):
            if checkpoint["run_id"] != run["run_id"]:
                raise _invalid(field, f"checkpoint {checkpoint['checkpoint']} belongs to another run")
        return {wanted[0]: (old, new)}, []
    by_step = {row["step"]: row for row in store.checkpoints.of_run(run["run_id"])}  # the latest of a step wins
    pairs: dict[int, Pair] = {}
    skipped = []
    for step in wanted:
        lacking = [at for at in (step, step + 1) if at not in by_step]
        if lacking:
            skipped.append({"step": step, "reason": f"no checkpoint of the policy before step {_listed(lacking)}"})
        else:
            pairs[step] = (by_step[step], by_step[step + 1])
    if not pairs or (request.steps is not None and skipped):
        raise Invalid(
            "no pair of checkpoints for what was asked: step s needs the policies before step s and before step s+1 "
            "(`dppo checkpoint RUN --step N PATH`), or give old and new",
            [FieldError(f"step {entry['step']}: {entry['reason']}", field="steps") for entry in skipped[:20]],
        )
    return pairs, skipped


def _logged_columns(available: dict[int, Row], steps: list[int]) -> set[str]:
    """Which optional log-prob columns hold anything in these steps."""
    names = ["rollout_logprobs", "old_logprobs", "new_logprobs"]
    found: set[str] = set()
    for step in steps:
        for piece in available[step]["pieces"]:
            rest = [name for name in names if name not in found]
            table = pq.read_table(piece, columns=rest, partitioning=None)
            found |= {name for name in rest if pc.count(table[name]).as_py() > 0}
        if len(found) == len(names):
            break
    return found


def _point(request: CreateAnalysis, columns: set[str]) -> EvaluatedAt:
    """The step's end; of the log alone, the trainer's π, or its π_old where it logged no other (NeMo-RL)."""
    if request.source == "scored":
        return "end"
    return "start" if "old_logprobs" in columns and "new_logprobs" not in columns else "logged"


def _check_inputs(
    request: CreateAnalysis, anchor: str, evaluated_at: str, columns: set[str], *, anchored: bool
) -> None:
    if anchor == "rollout" and "rollout_logprobs" not in columns:
        raise _invalid("anchor", "the log has no rollout_logprobs, so the only honest anchor is old")
    if anchor == "rollout" and not anchored:
        raise _invalid(
            "anchor", "raw log-probs at a temperature other than 1 are not the distribution that sampled: anchor old"
        )
    alone = request.source == "logged"  # no model, only what the log says
    if alone and evaluated_at == "end":
        raise _invalid("evaluated_at", "without scoring, the only policies are the logged ones: logged, or start")
    needed = {"new_logprobs", f"{anchor}_logprobs"} if evaluated_at == "logged" else set[str]()
    if alone and evaluated_at == "start":
        needed = {"rollout_logprobs", "old_logprobs"}
    if missing := sorted(needed - columns):
        way_out = "; register checkpoints to score it (`dppo checkpoint RUN --step N PATH`)" if alone else ""
        raise _invalid("evaluated_at", f"the log has no {' and no '.join(missing)}{way_out}")
    if alone and evaluated_at == "start" and anchor == "old":
        raise _invalid("anchor", "at the start π is π_old itself: without scoring, start is measured from rollout")


def _invalid(field: str, message: str) -> Invalid:
    return Invalid(message, [FieldError(message, field=field)])


def _listed(steps: list[int]) -> str:
    shown = ", ".join(str(step) for step in steps[:10])
    return shown + (f" … ({len(steps)} in all)" if len(steps) > 10 else "")
