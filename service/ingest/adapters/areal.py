"""AReaL's `dump_to_file`: JSONL, one response a line, text only, a file for each task under the policy version.

Written by `_dump_trajectory` (areal/infra/workflow_executor.py): `task_id`, `sample_idx`, `seqlen`, `prompt_len`,
`head_version` and `tail_version` (the lowest and highest policy version of all sequences of the task), `reward`, and
`prompt` and `completion`, special tokens kept. The step is `tail_version`, the policy after that many updates, as in
the path.

The writer takes as many tokens for the completion as were sampled, from the end: of several turns, what came between
the last two is part of it, and the first answers are part of the prompt. Nothing in the file tells such a line apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from service.ingest.adapters.base import Adapter
from service.ingest.adapters.fields import Fields
from service.ingest.adapters.text import TOKENISE

__all__ = ["AREAL"]

_MAPPED = ("task_id", "sample_idx", "reward", "prompt", "completion")


def _recognises(names: frozenset[str]) -> bool:
    return {"task_id", "prompt", "completion", "head_version", "tail_version"} <= names


def _convert(line: int, raw: dict[str, Any]) -> Iterator[dict[str, Any]]:
    fields = Fields(line, raw)
    fields.need("task_id", "sample_idx", "prompt", "completion", "tail_version")
    task, sample = fields.name("task_id"), fields.integer("sample_idx")
    prompt, response = fields.text("prompt"), fields.text("completion")
    step, head, reward = fields.step("tail_version"), fields.integer("head_version"), fields.number("reward")
    meta = fields.rest(_MAPPED)
    # −1 is the version of prompt tokens in AReaL's own workflows: the response's lowest is then not known.
    if head is not None and step is not None and 0 <= head < step:
        meta["policy_versions"] = [head, step]
    fields.check()
    yield {
        "step": step,
        "sample_id": f"{task}/{sample}",
        "group_id": task,
        "prompt_text": prompt,
        "response_text": response,
        "reward": reward,
        "policy_version": step if head == step else None,
        "meta": meta,
        TOKENISE: {"prompt": prompt, "response": response},
    }


AREAL = Adapter("areal", _recognises, _convert)
