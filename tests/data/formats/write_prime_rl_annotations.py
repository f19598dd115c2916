"""Write a stream of prime-rl's episodes and the trainer's annotations of them, with verifiers' and prime-rl's own code.

verifiers 0.4.0, and github.com/PrimeIntellect-ai/prime-rl at 65a185848115523d2feb2e110d04d05cfbea3a08, of which
src/prime_rl/trainer/rl/annotations.py and src/prime_rl/monitors/file/traces/update.py are used; Python 3.12:

    git clone https://github.com/PrimeIntellect-ai/prime-rl && git -C prime-rl checkout 65a1858
    python3.12 -m venv venv && venv/bin/pip install torch==2.13.0 verifiers==0.4.0 orjson
    venv/bin/python tests/data/formats/write_prime_rl_annotations.py prime-rl tests/data/formats

- prime-rl-65a1858-stream.jsonl: a line of `Episode.to_record()`, as the file monitor writes it on arrival.
- prime-rl-65a1858-trainer.jsonl: what the trainer's `AnnotationWriter` exports of a packed micro batch and flushes.
- prime-rl-65a1858-orchestrator.jsonl: `make_update` of the advantages and the batch, as the orchestrator calls it.
Stand-ins: the file monitor, in whose place each record is written as a line (`orjson.dumps`, as it does); the model,
whose log-probs and entropies (0.5) are by hand, and the loss, whose `is_masked` is −1 where it decides nothing.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import orjson
import torch
import verifiers.v1 as vf
from verifiers.v1.configs.agent import WireAgentConfig

F, T = False, True
NODES: list[tuple[int | None, list[int], list[float]]] = [  # parent, ids, log-probs of the last of them
    (None, [10, 11], []),
    (0, [20, 21, 22], [-0.5, -0.123456]),
    (1, [30, 31], []),  # a tool's
    (2, [40, 41], [-2.0]),
    (1, [50], []),  # asked again: a second branch
    (4, [60, 61, 62], [-0.75, -0.25]),
]
CREDIT = {1: [0.5, -0.5], 3: [0.25], 5: [0.0, 1.0]}  # by node
BRANCHES: list[dict[str, Any]] = [  # as the trainer has them: what branches share is trained in the first alone
    {
        "mask": [F, F, F, T, T, F, F, F, T],
        "logprobs": [-4.0, -3.0, -3.0, -0.625, -0.373456, -3.0, -3.0, -3.0, -1.5],
        "is_masked": [-1, -1, -1, 0, 1, -1, -1, -1, -1],
    },
    {
        "mask": [F, F, F, F, F, F, F, T, T],
        "logprobs": [-4.0, -3.0, -3.0, -3.0, -3.0, -3.0, -3.0, float("-inf"), -0.5],
        "is_masked": [-1, -1, -1, -1, -1, -1, -1, 1, -1],
    },
]


def main(checkout: Path, folder: Path) -> None:
    stream, trainer, orchestrator = (
        folder / f"prime-rl-65a1858-{name}.jsonl" for name in ("stream", "trainer", "orchestrator")
    )
    for name in ("prime_rl", "prime_rl.monitors"):  # without their own imports
        package = ModuleType(name)
        package.__path__ = [str(checkout / "src" / name.replace(".", "/"))]
        sys.modules[name] = package
    writer = importlib.import_module("prime_rl.trainer.rl.annotations")
    make_update = importlib.import_module("prime_rl.monitors.file.traces.update").make_update

    async def log_annotations(updates: list[dict[str, Any]]) -> None:
        lines(trainer, updates)

    sys.modules["prime_rl.monitors"].log_annotations = log_annotations
    whole = episode()
    lines(stream, [whole.to_record()])

    annotations = writer.AnnotationWriter(SimpleNamespace(cp_enabled=False), SimpleNamespace(world_size=1, rank=0), 4)
    annotations.export(*micro_batch())
    annotations.flush()

    (trace,) = whole.traces
    for place, advantages in CREDIT.items():
        trace.nodes[place].advantages = advantages
    info = {"effective": True, "ship": {"step": 8, "time": 2.0}, "advantage": 0.25}
    branches = {branch.index: {"advantages": branch.advantages} for branch in trace.branches}
    lines(orchestrator, [make_update(trace.id, info=info, branches=branches)])


def episode() -> Any:
    """One episode of one trace, dispatched at step 6, that came back at step 7."""
    task = vf.TraceTask(type="Reverse", data=vf.WireTaskData(idx=7, prompt="abc"), key="k7")
    config = WireAgentConfig(model="m", runtime=vf.SubprocessConfig())
    agent = vf.AgentInfo(config=config, name="solver")
    trace = vf.Trace(id="t1", task=task, agent=agent, timing=vf.Timing(start=1.0), ok=True)
    for place, (parent, ids, logprobs) in enumerate(NODES):
        said = vf.AssistantMessage(content="…") if logprobs else vf.UserMessage(content="…")
        mask = [False] * (len(ids) - len(logprobs)) + [True] * len(logprobs)
        node = vf.MessageNode(parent=parent, message=said, sampled=bool(logprobs), timestamp=float(place))
        node.token_ids, node.mask, node.logprobs = ids, mask, logprobs
        trace.nodes.append(node)
    trace.calls += [vf.ModelCall(node=place, finish_reason="stop") for place in (1, 3, 5)]
    trace.record_reward("right", 1.0)
    trace.info |= {"kind": "train", "dispatch": {"step": 6, "time": 1.0}, "arrival": {"step": 7, "time": 1.5}}
    work = vf.TrainWorkInfo(step=6, policy=vf.PolicySpan(start=5, end=5))
    run = vf.TrainRunInfo(id="run-1", work=work)
    group = vf.GroupInfo(id="g7")
    return vf.Episode(id="e1", env=vf.EnvInfo(id="reverse"), task=task, group=group, run=run, ok=True, traces=[trace])


def micro_batch() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Both branches packed, the last with two tokens of padding."""
    padding = 2
    lengths = [len(branch["mask"]) for branch in BRANCHES]
    mask, logprobs, masked = ([value for one in BRANCHES for value in one[name]] for name in BRANCHES[0])
    batch = {
        "trace_ids": ["t1", "t1"],
        "branch_indices": [0, 1],
        "sequence_lengths": [lengths[0], lengths[1] + padding],
        "loss_mask": torch.tensor([mask + [False] * padding]),
        "env_names": ["reverse"] * sum(lengths) + [""] * padding,
    }
    out = {"logprobs": torch.tensor([logprobs + [-9.0] * padding])}
    out["entropy"] = torch.full_like(out["logprobs"], 0.5)
    return batch, out, {"is_masked": torch.tensor([masked + [-1] * padding])}


def lines(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_bytes(b"".join(orjson.dumps(one, default=str, option=orjson.OPT_APPEND_NEWLINE) for one in records))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
