"""Writes the fixture of AReaL's rollout dump with areal 1.0.4's own code.

    python3.12 -m venv venv
    venv/bin/pip install areal==1.0.4 --no-deps
    venv/bin/pip install torch==2.13.0 transformers==5.3.0 omegaconf==2.4.0.dev2 hydra-core==1.4.0.dev1 torchdata \\
        aiofiles aiohttp colorlog einops flask httpx lark numba openai orjson pillow ray requests swanlab==0.6.12 \\
        tabulate tenacity tensorboardX trackio uvloop wandb
    PYTHONPATH=. venv/bin/python tests/data/formats/write_areal.py

from the root of the repository. It writes areal-1.0.4-rollout.jsonl: the files rollout/{version}/{task}.jsonl of a
`WorkflowExecutor` with dump_to_file (`_dump_trajectory`), one after the other, for a group of AReaL's `RLVRWorkflow`,
its `MultiTurnWorkflow`, and a workflow that says no versions. Stand-in: an inference engine that gives ANSWERS. The
words that `MultiTurnWorkflow` puts between two turns are set to shorter ones. The tokenizer is that of
tests/ingest/adapters/words.py.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from areal.api import ModelResponse, RolloutWorkflow
from areal.api.cli_args import GenerationHyperparameters, InferenceEngineConfig
from areal.infra.remote_inf_engine import GroupedRolloutWorkflow
from areal.infra.workflow_executor import WorkflowExecutor
from areal.utils import logging
from areal.utils.hf_utils import load_hf_tokenizer
from areal.workflow.multi_turn import MultiTurnWorkflow
from areal.workflow.rlvr import RLVRWorkflow

from tests.ingest.adapters.words import CHAT, words

HERE = Path(__file__).parent
TASK = {"messages": [{"role": "user", "content": "2+2?"}]}  # <bos>user\n2+2?\nassistant\n
AGAIN = [6, 4, 6, 15, 9, 6, 5, 6]  # \nuser\n0?\nassistant\n
# the ids of each answer, and the policy versions that sampled them
ANSWERS = [
    ([10, 2], [7, 7]),  # the group: 4<eos>, and
    ([11, 12, 13], [6, 7, 7]),  # four is it
    ([11], [6]),  # two turns: four, which is not 4,
    ([10, 2], [8, 8]),  # and 4<eos>
]


class Engine:
    """A server that has its answers ready."""

    answers = iter(ANSWERS)

    def get_version(self) -> int:
        return 9

    async def agenerate(self, request: Any) -> Any:
        ids, versions = next(self.answers)
        return ModelResponse(
            input_tokens=request.input_ids,
            output_tokens=ids,
            output_logprobs=[-0.5] * len(ids),
            output_versions=versions,
            tokenizer=request.tokenizer,
        )


def reward(prompt: str, completion: str, prompt_ids: list[int], completion_ids: list[int], **_: Any) -> float:
    return float("4" in completion)


class NoVersions(RolloutWorkflow):
    """Responses of 2, 1 and 0 tokens to 2?, right-padded; the second was not scored."""

    async def arun_episode(self, *_: Any) -> dict[str, Any]:
        return {
            "input_ids": torch.tensor([[1, 7, 9, 10, 2], [1, 7, 9, 15, 0], [1, 7, 9, 0, 0]]),
            "loss_mask": torch.tensor([[0, 0, 0, 1, 1], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0]]),
            "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0], [1, 1, 1, 0, 0]]),
            "rewards": torch.tensor([0.25, float("nan"), 0.0]),
        }


def main() -> None:
    with TemporaryDirectory() as folder:
        tokenizer = words(Path(folder) / "words", bos=True, chat_template="{{ bos_token }}" + CHAT)
        config = InferenceEngineConfig(
            experiment_name="e",
            trial_name="t",
            fileroot=folder,
            tokenizer_path=tokenizer,
            consumer_batch_size=3,
            dump_to_file=True,
        )
        executor = WorkflowExecutor(config, Engine())
        executor.initialize(train_data_parallel_size=1)
        loaded, sampling = load_hf_tokenizer(tokenizer), GenerationHyperparameters()
        single = RLVRWorkflow(reward, sampling, loaded)
        twice = MultiTurnWorkflow(reward, sampling, loaded, max_turns=2, turn_discount=0.5)
        twice.multi_turn_prompt_ids = AGAIN
        for workflow in (GroupedRolloutWorkflow(single, 2, logging.getLogger("group")), twice, NoVersions()):
            executor.submit(TASK, workflow)
            executor.wait(1)
        executor.destroy()
        written = sorted(Path(folder).glob("logs/*/e/t/rollout/*/*.jsonl"))
        assert [(path.parent.name, path.name) for path in written] == [
            ("7", "0.jsonl"),
            ("8", "1.jsonl"),
            ("9", "2.jsonl"),
        ]
        (HERE / "areal-1.0.4-rollout.jsonl").write_text("".join(path.read_text() for path in written))


if __name__ == "__main__":
    main()
