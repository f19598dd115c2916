"""An iteration of the lab as rollout records, to a running service or to files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dppo_core.lab.language import PROMPT, TOKENS
from dppo_core.lab.settings import Run
from dppo_core.lab.train import Step
from service.client import Client, RolloutLogger

__all__ = ["Sink", "log_to_files", "log_to_service", "records", "service_name"]

Sink = Callable[[Step], None]
LONGEST = 100
SAMPLING = {"temperature": 1.0, "logprobs_mode": "raw"}


def service_name(run: Run) -> str:
    """The run's name in a service, whose names are of letters, digits, dots and dashes: long settings become a hash."""
    name = run.name.replace(",", ".").replace("=", "-")
    if len(name) <= LONGEST:
        return name
    return f"{run.method}.{hashlib.sha256(run.arm.encode()).hexdigest()[:12]}-s{run.seed}"


def records(step: Step) -> list[dict[str, Any]]:
    """One record a response, with the trainer's own π_old (at the iteration's start), π and mask."""
    rows = []
    group = 0
    lengths = step.counted.sum(1).tolist()
    for index, (problem, length) in enumerate(zip(step.problems, lengths, strict=True)):
        group += index > 0 and problem != step.problems[index - 1]
        tokens = step.tokens[index, :length].tolist()
        row = {
            "step": step.number,
            "group_id": f"{step.number}/{group}",
            "sample_id": f"{step.number}/{index}",
            "prompt_token_ids": problem.prompt,
            "response_token_ids": tokens,
            "response_mask": [1] * length,
            "rollout_logprobs": _numbers(step.logp_rollout[index, :length]),
            "old_logprobs": _numbers(step.logp_start[index, :length]),
            "new_logprobs": _numbers(step.logp_new[index, :length]),
            "trainer_keep": step.keep[index, :length].tolist(),
            "reward": float(step.reward[index]),
            "advantage": float(step.advantage[index]),
            "policy_version": step.version,
            "minibatch": int(step.minibatch[index]),
            "prompt_text": " ".join(TOKENS[token] for token in problem.prompt[:PROMPT]),
            "response_text": " ".join(TOKENS[token] for token in tokens),
        }
        if step.top_ids is not None and step.top_logp is not None:
            row["rollout_top_token_ids"] = step.top_ids[index, :length].tolist()
            row["rollout_top_logprobs"] = [_numbers(place) for place in step.top_logp[index, :length]]
        rows.append(row)
    return rows


def _numbers(values: Any) -> list[float | None]:
    """Log-probs as JSON numbers; one that is not known is null."""
    return [None if value != value else min(value, 0.0) for value in values.tolist()]


def log_to_files(run: Run, folder: Path) -> Sink:
    """FOLDER/NAME/step_000012.jsonl, a file a step, each written whole."""
    place = folder / service_name(run)
    place.mkdir(parents=True, exist_ok=True)

    def sink(step: Step) -> None:
        file = place / f"step_{step.number:06d}.jsonl"
        part = file.with_suffix(".part")
        part.write_text("".join(json.dumps(row, allow_nan=False) + "\n" for row in records(step)), encoding="utf-8")
        part.replace(file)

    return sink


def log_to_service(run: Run, logger: RolloutLogger) -> Sink:
    """Through the live logger. A step that cannot be handed over ends the run: here the log is what is wanted."""

    def sink(step: Step) -> None:
        if not logger.log(step.number, records(step)):
            raise RuntimeError(f"step {step.number} of {run.name} could not be logged; see the warning above")

    return sink


def describe(client: Client, run: Run) -> None:
    """Create the run in the service where it is not known."""
    name = service_name(run)
    if all(known["run"] != name for known in client.runs()):
        client.create_run(name, sampling=SAMPLING, framework="dppo-lab", meta={"run": run.name})
