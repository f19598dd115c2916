"""A log without a fault, to plant one in; and the finding that comes of it."""

from __future__ import annotations

import random
from typing import Any

from tests.ingest.files import Importing

Record = dict[str, Any]

TOKENS = 12  # of a response


def healthy(steps: int = 2, groups: int = 3, size: int = 4) -> list[Record]:
    """Records of every kind of field, of which the import has nothing to say. Groups of `size`, rewards 0 and 1."""
    return [
        response(step, group, sample, reward=float(sample % 2), advantage=sample % 2 - size // 2 / size)
        for step in range(steps)
        for group in range(groups)
        for sample in range(size)
    ]


def response(step: int = 0, group: int = 0, sample: int = 0, **fields: Any) -> Record:
    """A record with log-probs of three policies that differ by hundredths."""
    chance = random.Random(f"{step}/{group}/{sample}")
    logprobs = [-chance.uniform(1, 5) for _ in range(TOKENS)]
    whole = {
        "step": step,
        "sample_id": f"{step}/{group}/{sample}",
        "group_id": f"{step}/{group}",
        "prompt_token_ids": [9, 8, 7, 6, 5, step, group],
        "response_token_ids": [chance.randrange(100, 1000) for _ in range(TOKENS)],
        "response_mask": [1] * TOKENS,
        "rollout_logprobs": logprobs,
        "old_logprobs": [logprob + chance.uniform(0.01, 0.02) for logprob in logprobs],
        "new_logprobs": [logprob - chance.uniform(0.01, 0.02) for logprob in logprobs],
        **fields,
    }
    return {name: value for name, value in whole.items() if value is not ...}


def findings(importing: Importing, records: list[Any], **task: Any) -> dict[str, dict[str, Any]]:
    """All findings by code, each of which comes once."""
    manifest = importing(records, **task)
    for level in ("warning", "note"):
        assert {one["level"] for one in manifest[f"{level}s"]} <= {level}
    found = manifest["warnings"] + manifest["notes"]
    assert len({one["code"] for one in found}) == len(found)
    return {one["code"]: one for one in found}


def warning(importing: Importing, records: list[Any], code: str, **task: Any) -> dict[str, Any]:
    """The warning `code`; the only one there is."""
    found = findings(importing, records, **task)
    assert [one for one in found if found[one]["level"] == "warning"] == [code]
    return found[code]


def note(importing: Importing, records: list[Any], code: str, **task: Any) -> dict[str, Any]:
    """The note `code`, beside no warning."""
    found = findings(importing, records, **task)
    assert [one for one in found if found[one]["level"] == "warning"] == []
    return found[code]
