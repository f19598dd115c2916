"""Write open-instruct's saved traces of one step with open-instruct's own writer.

github.com/allenai/open-instruct at e6c3044aa6201c8bfa4573c1b03142af599e730d (2026-08-20), Python 3.12:

    git clone https://github.com/allenai/open-instruct && git -C open-instruct checkout e6c3044
    python3.12 -m venv venv && venv/bin/pip install torch==2.13.0 "transformers<5.12" datasets accelerate peft pandas \
        ray wandb beaker-py requests python-dateutil rich langdetect immutabledict nltk tiktoken absl-py
    venv/bin/python tests/data/formats/write_open_instruct.py open-instruct tests/data/formats

`save_rollouts_to_disk` of `open_instruct/rl_utils.py` writes run_rollouts_000000.jsonl of a `Batch` and a
`GenerationResult`, as `data_loader.py` hands them over: two prompts of two samples each, advantages the reward less the
mean of its prompt's. The responses are by hand, as `vllm_utils.py` makes them: a tool's tokens have a log-prob of 0.0
(`process_tool_tokens`), and where nothing was generated the end-of-text token stands with NaN.
Stand-ins: deepspeed and olmo_core, which `model_utils.py` imports and the writer does not use.
"""

from __future__ import annotations

import shutil
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import MagicMock

UNUSED = ("deepspeed", "deepspeed.runtime", "deepspeed.runtime.engine")
UNUSED += ("olmo_core", "olmo_core.nn", "olmo_core.nn.attention")
NAN = float("nan")


def main(checkout: Path, folder: Path) -> None:
    sys.path.insert(0, str(checkout))
    for name in UNUSED:
        sys.modules[name] = MagicMock(__name__=name, __path__=[], __spec__=ModuleSpec(name, None))
    import numpy as np
    from open_instruct import rl_utils
    from open_instruct.data_types import GenerationResult, RequestInfo, ToolCallStats
    from open_instruct.model_utils import Batch

    call = ToolCallStats(tool_name="python", success=True, runtime=0.5)
    state = {"rewards": [0.0], "step_count": 1, "done": False, "info": {}}
    rewards = np.array([10.0, 0.0, 1.0, 0.0])
    batch = Batch(
        queries=[[1, 4, 6], [1, 4, 6], [1, 5], [1, 5]],
        ground_truths=[["4"], ["4"], "short", "short"],
        datasets=["math", "math", "ifeval", "ifeval"],
        raw_queries=None,
        decoded_responses=None,
        indices=None,
        scores=rewards.tolist(),
    )
    result = GenerationResult(
        responses=[[10, 11, 30, 31, 12, 2], [13, 2], [14, 15, 16], [2]],
        finish_reasons=["stop", "stop", "length", "stop"],
        masks=[[1, 1, 0, 0, 1, 1], [1, 1], [1, 1, 1], [1]],
        request_info=RequestInfo(
            num_calls=[1, 0, 0, 0],
            timeouts=[False] * 4,
            tool_errors=[""] * 4,
            tool_outputs=["4", "", "", ""],
            tool_runtimes=[0.5, 0.0, 0.0, 0.0],
            tool_calleds=[True, False, False, False],
            tool_call_stats=[[call], [], [], []],
            rollout_states=[state, {}, {}, {}],
        ),
        index=None,
        prompt_id=None,
        logprobs=[[-0.25, -1.5, 0.0, 0.0, -2.0, -0.125], [-0.5, 0.0], [-0.75, -1.0, -3.0], [NAN]],
    )
    advantages = rewards - np.array([5.0, 5.0, 0.5, 0.5])
    with TemporaryDirectory() as saved:
        rl_utils.save_rollouts_to_disk(saved, "run", 12, batch, result, advantages, 2, 0)
        rl_utils._rollout_executor.shutdown()  # the write happens on its thread
        shutil.copy(Path(saved) / "run_rollouts_000000.jsonl", folder / "open-instruct-e6c3044-rollouts.jsonl")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
