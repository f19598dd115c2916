"""verifiers v1 episodes, as prime-rl's file monitor writes them: `traces.jsonl`, later `traces/stream.jsonl`.

A line is an episode of traces, or one trace. A trace is a graph of messages, each with the tokens that it adds; a path
from a root to a leaf is a branch, and each branch becomes a response, as the trainer makes one training sample of it.
Where branches share a sampled message, it counts in the first of them alone: there it is trained. A branch that is not
trained at all (`graph`) is left out.

What is learned later (`advantages`, `trainer_logprobs`, `entropies`, `is_masked`) prime-rl writes into files beside the
stream, `annotations/`: `dppo convert prime-rl` joins them (`adapters.annotations`), and a line that has them in its
nodes is read as it is. The stream holds the episodes of evaluations too, which are not trained on: they are left out.

meta has what has no place in the record: of the episode and the run under `episode` and `run`, of the trace under its
own names, with its first response alone, of the messages under `nodes`, with the first response that holds them. The
text of the messages is there: it is not what the tokens decode to, so that `prompt_text` and `response_text` stay null.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from service.ingest.adapters.base import Adapter, LeftOut
from service.ingest.adapters.common import prompt_hash
from service.ingest.adapters.fields import Fields
from service.ingest.adapters.graph import Branch, branches_of, nodes_of

__all__ = ["VERIFIERS"]

_NO_TRACE = LeftOut("the episode has no trace; it failed before there was one")
_NOT_TRAINED = LeftOut("its agent is not trained: the tokens are not of this run's policy")
_EVALUATION = LeftOut("it is work of an evaluation, which is not trained on")
_NOT_RESUMED = LeftOut("it attempts to compact a context and nothing goes on from it: it is not trained on")
_NO_TOKENS = LeftOut("no token of it was sampled, or the client that sampled kept no token ids")
_EPISODE = ("env", "task", "group", "run", "traces")
_TRACE = (*_EPISODE, "id", "nodes", "agent", "stop_condition")


def _recognises(names: frozenset[str]) -> bool:
    return {"task", "traces"} <= names or {"task", "nodes"} <= names


def _convert(line: int, raw: dict[str, Any]) -> Iterator[dict[str, Any] | LeftOut]:
    episode = Fields(line, raw)
    shared = _shared(episode)
    traces = [episode] if "nodes" in raw else episode.each("traces")
    episode.check()
    if shared["meta"]["work"] == "eval":
        yield _EVALUATION
        return
    if not traces:
        yield _NO_TRACE
    for trace in traces:
        agent = trace.inside("agent")
        if agent.get("trainable") is False:
            yield _NOT_TRAINED
        else:
            responses = _responses(trace, agent.text("name"), shared)
            yield from responses
            if not responses:
                yield _NO_TOKENS


def _shared(episode: Fields) -> dict[str, Any]:
    """What an episode says of all its responses."""
    run = episode.inside("run")
    work = run.inside("work")
    policy = work.inside("policy")
    start, end = policy.integer("start"), policy.integer("end")
    return {
        "step": work.step("step"),
        "group_id": episode.inside("group").name("id"),
        # where the policy changed meanwhile, nothing says which token is of which version
        "policy_version": start if start == end else None,
        "meta": {
            "env": episode.plain("env"),
            "task": episode.plain("task"),
            "run_id": run.name("id"),
            "work": work.text("type"),
            "policy": work.plain("policy") or None,
            "policy_versions": [start, end] if start is not None and end is not None and start != end else None,
            "run": run.rest(("id", "work")) or None,
            "episode": (episode.rest(_EPISODE) or None) if "nodes" not in episode.raw else None,
        },
    }


def _responses(trace: Fields, agent: str | None, shared: dict[str, Any]) -> list[dict[str, Any] | LeftOut]:
    trace.need("id")
    nodes = nodes_of(trace)
    trace.check()
    every = branches_of(trace, nodes)
    branches = [branch for branch in every if branch.trained]
    reward, finish = _reward(trace), _finish_reasons(trace)
    meta = shared["meta"] | {"agent": agent, "stop_condition": trace.text("stop_condition")}
    if trace.get("task") is not None:
        meta["task"] = trace.plain("task")
    about = {**trace.rest(_TRACE), "agent_config": trace.inside("agent").rest(("name", "trainable")) or None}
    name = trace.name("id")
    trace.check()
    group = shared["group_id"] or (prompt_hash(branches[0].prompt) if branches else None)
    records: list[dict[str, Any] | LeftOut] = []
    for branch in branches:
        of_branch = {**meta, "entropy": branch.column("entropies"), "nodes": branch.about or None}
        if not records:
            of_branch = {**about, **of_branch}
        record = {
            **shared,
            "sample_id": name if len(branches) == 1 else f"{name}/{branch.index}",
            "group_id": group,
            **_tokens(branch),
            "reward": reward,
            "finish_reason": next((finish[node] for node in reversed(branch.path) if node in finish), None),
            "meta": {key: value for key, value in of_branch.items() if value is not None},
        }
        records.append(record)
    return records + [_NOT_RESUMED] * (len(every) - len(branches))


def _tokens(branch: Branch) -> dict[str, Any]:
    return {
        "prompt_token_ids": branch.prompt,
        "response_token_ids": branch.response,
        "response_mask": branch.mask,
        "turn": branch.turns,
        "rollout_logprobs": branch.column("logprobs"),
        "new_logprobs": branch.column("trainer_logprobs"),
        "advantage": branch.column("advantages"),
        "trainer_keep": branch.keeps,
    }


def _reward(trace: Fields) -> float | None:
    """Σ score × weight of the rewards that were given; older traces hold the product itself."""
    rewards = trace.inside("rewards")
    given = []
    for name, value in rewards.raw.items():
        if isinstance(value, dict):
            one = rewards.inside(name)
            score, weight = one.number("score"), one.number("weight")
            given.append(None if score is None else score * (1.0 if weight is None else weight))
        else:
            given.append(rewards.number(name))
    known = [value for value in given if value is not None]
    return sum(known) if known else None


def _finish_reasons(trace: Fields) -> dict[int, str]:
    """Node → why the model stopped there."""
    reasons = {}
    for call in trace.each("calls"):
        node, reason = call.integer("node"), call.text("finish_reason")
        if node is not None and reason is not None:
            reasons[node] = reason
    return reasons


VERIFIERS = Adapter("verifiers", _recognises, _convert)
