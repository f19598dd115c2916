"""What makes a group: as many responses as the others of its step, to one prompt, each sampled once."""

from __future__ import annotations

import numpy as np

from service.ingest.columns import Columns
from service.ingest.findings.advantages import contradictions, not_centred
from service.ingest.findings.finding import Finding, Level, many
from service.ingest.findings.responses import Groups, Responses
from service.ingest.flat import Ints

__all__ = ["GroupChecks"]

_SHOWN = 5  # steps by name


class GroupChecks:
    """All that takes the responses of a group together."""

    def __init__(self) -> None:
        self._responses = Responses()

    def observe(self, columns: Columns) -> None:
        self._responses.add(columns)

    def findings(self) -> list[Finding]:
        groups = self._responses.grouped()
        if not len(groups.starts):
            return []
        checks = (_alone, _uneven, _missing, _prompts, _copies, not_centred, contradictions)
        return [finding for check in checks if (finding := check(groups)) is not None]


def _alone(groups: Groups) -> Finding | None:
    """Every response a group of its own, though prompts come again and again."""
    if len(groups.starts) < 2 or groups.sizes.max() > 1:
        return None
    prompts = len(np.unique(groups.responses[["step", "prompt"]]))
    if 2 * prompts > len(groups.starts):
        return None
    message = (
        f"Every response is a group of its own, though {many(len(groups.starts), 'response')} have only "
        f"{many(prompts, 'prompt')}{groups.partly}: what is said of a group or a prompt is said of one response. "
        "Responses to one prompt share a group_id."
    )
    return Finding("ungrouped", "warning", message, len(groups.starts), groups.examples(groups.starts, "group_id"))


def _uneven(groups: Groups) -> Finding | None:
    """Groups of another size than is usual in their step."""
    usual = _usual(groups)
    odd = groups.sizes != usual
    if not odd.any():
        return None
    sizes = groups.sizes[odd]
    alone = int(np.count_nonzero(sizes == 1))
    message = (
        f"{int(odd.sum()):,} of {many(len(odd), 'group')} hold another number of responses than is usual in their step"
        f"{groups.partly}: {_range(sizes)} instead of {_range(usual[odd])}"
        + (f", {alone:,} of them a single response" if alone else "")
        + ". What was filtered, or is missing from the log, is in no count."
    )
    return Finding("uneven_groups", "note", message, int(odd.sum()), groups.examples(groups.starts[odd], "group_id"))


def _missing(groups: Groups) -> Finding | None:
    """Steps of fewer groups than most steps of the file have."""
    if groups.partly:  # the last step that is remembered may go on
        return None
    steps, counts = np.unique(groups.steps, return_counts=True)
    sizes, often = np.unique(counts, return_counts=True)
    usual = int(sizes[often.argmax()])
    fewer = counts < usual
    if 2 * often.max() <= len(steps) or not fewer.any():
        return None
    short = [(int(step), int(count)) for step, count in zip(steps[fewer], counts[fewer], strict=True)]
    shown = ", ".join(f"step {step} holds {many(count, 'group')}" for step, count in short[:_SHOWN])
    message = (
        shown
        + (f" and {len(short) - _SHOWN} more steps too few" if len(short) > _SHOWN else "")
        + f", where {usual:,} are usual in this file: filtered by the trainer, or missing from the log? What is not "
        "there is in no count."
    )
    of_steps = [np.flatnonzero(groups.responses["step"] == step) for step, _ in short[:_SHOWN]]
    firsts = np.array([rows[groups.responses["line"][rows].argmin()] for rows in of_steps])
    return Finding("missing_groups", "note", message, len(short), groups.examples(firsts, "group_id"))


def _usual(groups: Groups) -> Ints:
    """[groups] the most frequent size of a group in its step; of two, the larger."""
    pairs, count = np.unique(np.stack([groups.steps, groups.sizes], axis=1), axis=0, return_counts=True)
    order = np.lexsort((pairs[:, 1], count, pairs[:, 0]))  # the last of each step is its usual size
    last = np.append(np.diff(pairs[order, 0]) != 0, True)
    steps, usual = pairs[order, 0][last], pairs[order, 1][last]
    sizes: Ints = usual[np.searchsorted(steps, groups.steps)]
    return sizes


def _range(numbers: Ints) -> str:
    low, high = int(numbers.min()), int(numbers.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _prompts(groups: Groups) -> Finding | None:
    """Groups whose responses answer different prompts."""
    prompt = groups.responses["prompt"]
    other = prompt != groups.spread(prompt[groups.starts])
    mixed = groups.any(other)
    if not mixed.any():
        return None
    plain = mixed & ~groups.any(groups.responses["agentic"])
    level: Level = "warning" if plain.any() else "note"
    count = int(mixed.sum())
    message = (
        f"{count:,} of {many(len(mixed), 'group')} hold responses to different prompt_token_ids{groups.partly}"
        + (
            ": group_id does not name a prompt. What is said of a group mixes them."
            if plain.any()
            else ", as where agents compact or branch their context: what is said of a group is not of one prompt."
        )
    )
    numbers = np.flatnonzero(other)
    firsts = numbers[np.unique(groups.spread(np.arange(len(mixed)))[numbers], return_index=True)[1]]
    return Finding("group_prompts_differ", level, message, count, groups.examples(firsts, "prompt_token_ids"))


def _copies(groups: Groups) -> Finding | None:
    """Responses that are in their group already, token for token and log-prob for log-prob."""
    group, content = groups.spread(np.arange(len(groups.starts))), groups.responses["content"]
    order = np.lexsort((content, group))  # stable: of equal ones the first in the file comes first
    again = np.zeros(len(order), bool)
    again[1:] = (np.diff(group[order]) == 0) & (np.diff(content[order]) == 0) & (content[order][1:] != 0)
    if not again.any():
        return None
    copies = order[again]
    count = len(copies)
    message = (
        f"{many(count, 'response', 'repeat')} another of the same group under another sample_id{groups.partly}: the "
        "same tokens with the same rollout_logprobs, less likely by chance than e^−30. They count twice."
    )
    return Finding("copied_responses", "warning", message, count, groups.examples(copies, "sample_id"))
