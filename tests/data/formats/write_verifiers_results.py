"""Writes the fixture of verifiers' legacy results.jsonl with verifiers 0.3.1's own code: the last release that has it.

    python3.11 -m venv venv
    venv/bin/pip install verifiers==0.3.1
    venv/bin/python tests/data/formats/write_verifiers_results.py

It writes verifiers-0.3.1-results.jsonl, the results.jsonl of `Environment.generate(save_results=True,
state_columns=["trajectory"])` (`save_outputs` of verifiers/legacy/utils/save_utils.py), for two groups of two rollouts
of a `MultiTurnEnv` with a limit of 12 tokens, scored by a `Rubric`, which gives the advantages too.

Stand-in: a client that gives ANSWERS with their tokens instead of asking a server. The clock stands still and uuids are
counted, to be the same in each run.
"""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import verifiers.legacy as vf
from datasets import Dataset
from verifiers.legacy.clients import Client
from verifiers.legacy.types import Response, ResponseMessage, ResponseTokens, Usage, UserMessage

HERE = Path(__file__).parent

# of each rollout, by its seed: (prompt ids, completion ids with their log-probs) of each call; None: the server fails
ANSWERS: dict[int, list[tuple[list[int], dict[int, float]] | None]] = {
    # the second prompt is all that was, and the environment's 50 51
    0: [([1, 2], {3: -0.5, 4: -0.25}), ([1, 2, 3, 4, 50, 51], {6: -1.0})],
    # the second prompt is another context; its answer is cut at 12 tokens
    1: [([1, 2], {7: -0.75}), ([1, 9, *range(20, 28)], {30: -2.0, 31: -0.125, 32: -0.5})],
    # the second prompt alone is longer than 12 tokens: no token of its answer is kept
    2: [([5], {8: 0.0}), ([5, 8, *range(20, 32)], {33: -3.0})],
    3: [None],
}


class Answers(Client[None, Any, Any, Any]):
    """What a server would say, by the rollout's seed and turn."""

    def setup_client(self, config: Any) -> None: ...

    async def to_native_tool(self, tool: Any) -> Any: ...

    async def to_native_prompt(self, messages: Any) -> tuple[Any, dict[str, Any]]:
        return messages, {}

    async def get_native_response(self, *_: Any, state: Any, **__: Any) -> Any:
        return ANSWERS[state["info"]["seed"]][len(state["trajectory"])]

    async def raise_from_native_response(self, response: Any) -> None:
        if response is None:
            raise vf.ModelError("the server is away")

    async def from_native_response(self, response: Any) -> Response:
        prompt, sampled = response
        tokens = ResponseTokens(
            prompt_ids=prompt,
            prompt_mask=[0] * len(prompt),
            completion_ids=list(sampled),
            completion_mask=[1] * len(sampled),
            completion_logprobs=list(sampled.values()),
        )
        message = ResponseMessage(content="so", finish_reason="stop", is_truncated=False, tokens=tokens)
        counts = {"prompt_tokens": len(prompt), "completion_tokens": len(sampled)}
        usage = Usage(**counts, reasoning_tokens=0, total_tokens=sum(counts.values()))
        return Response(id="r", created=1, model="m", usage=usage, message=message)

    async def close(self) -> None: ...


class TwoTurns(vf.MultiTurnEnv):
    async def setup_state(self, state: Any) -> None:
        state["timing"].start_time = 1.0  # its default took the clock before it stood still

    async def env_response(self, *_: Any, **__: Any) -> Any:
        return [UserMessage(content="go on")]


def right(info: dict[str, int], **_: Any) -> float:
    return float(info["seed"] == 0)


def quick(info: dict[str, int], **_: Any) -> float:
    return float(info["seed"] == 2)


async def main() -> None:
    counted = itertools.count()
    uuid.uuid4 = lambda: uuid.UUID(int=next(counted))
    time.time = lambda: 1.0
    rubric = vf.Rubric(funcs=[right, quick], weights=[1.0, 0.5])
    prompt = [{"role": "user", "content": "2+2?"}]
    inputs = [{"prompt": prompt, "example_id": 7 + seed // 2, "info": {"seed": seed}} for seed in ANSWERS]
    environment = TwoTurns(max_turns=2, rubric=rubric, max_seq_len=12, dataset=Dataset.from_list(inputs))
    with TemporaryDirectory() as folder:
        await environment.generate(
            inputs,
            Answers(None),
            "m",
            max_concurrent=1,
            results_path=Path(folder),
            state_columns=["trajectory"],
            save_results=True,
        )
        (HERE / "verifiers-0.3.1-results.jsonl").write_bytes((Path(folder) / "results.jsonl").read_bytes())


if __name__ == "__main__":
    asyncio.run(main())
