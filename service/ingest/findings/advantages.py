"""Advantages beside the rewards of their group."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from service.ingest.findings.finding import Finding, Level, many
from service.ingest.findings.responses import Groups
from service.ingest.flat import Bools, Floats, Ints

__all__ = ["contradictions", "not_centred"]

_CENTRED = 0.01  # of the group's standard deviation: room for bfloat16, or for four digits
_EQUAL = 1e-6  # of the largest: rewards that are one
_CLEAR = 1e-3  # of the group's largest: an advantage that has a sign, or differs from another
_OFTEN = 0.01  # of the responses; fewer may have been shaped or clipped after the reward was logged
_APART = 4.0  # moves advantages in [−1, 1] of one group out of the way of the next group's


@dataclass(frozen=True)
class _Varied:
    """Groups in which every advantage and reward is known, rewards differ, and an advantage is not 0."""

    rows: Ints  # [n] their responses in `Groups.responses`, a group side by side
    starts: Ints  # [groups] where each begins in `rows`
    sizes: Ints  # [groups]
    advantage: Floats  # [n] over the group's largest
    reward: Floats  # [n] minus the group's mean, over the largest distance from it

    @classmethod
    def of(cls, groups: Groups) -> _Varied:
        advantage, reward = groups.responses["advantage"], groups.responses["reward"]
        usable = (groups.sizes > 1) & ~groups.any(np.isnan(advantage) | np.isnan(reward)) & groups.any(advantage != 0)
        usable &= groups.any(np.abs(reward - groups.spread(reward[groups.starts])) > _EQUAL * np.abs(reward))
        rows, sizes = np.flatnonzero(groups.spread(usable)), groups.sizes[usable]
        starts = np.cumsum(sizes) - sizes
        if not len(rows):
            return cls(rows, starts, sizes, np.empty(0), np.empty(0))
        distance = reward[rows] - np.repeat(np.add.reduceat(reward[rows], starts) / sizes, sizes)
        return cls(
            rows,
            starts,
            sizes,
            advantage[rows] / np.repeat(np.maximum.reduceat(np.abs(advantage[rows]), starts), sizes),
            distance / np.repeat(np.maximum.reduceat(np.abs(distance), starts), sizes),
        )


def not_centred(groups: Groups) -> Finding | None:
    """Groups whose advantages do not sum to zero."""
    varied = _Varied.of(groups)
    if not len(varied.rows):
        return None
    mean = np.add.reduceat(varied.advantage, varied.starts) / varied.sizes
    square = np.add.reduceat(varied.advantage**2, varied.starts) / varied.sizes
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    off = np.abs(mean) > _CENTRED * deviation + _EQUAL
    if not off.any():
        return None
    count = int(np.count_nonzero(off))
    message = (
        f"In {count:,} of {many(len(off), 'group')} whose rewards vary, the advantages do not sum to zero"
        f"{groups.partly}. Expected with a critic, a baseline of the whole batch or filtered groups; with a baseline "
        "of the group, some of its responses are missing from the log."
    )
    return Finding("not_centred", "note", message, count, groups.examples(varied.rows[varied.starts[off]], "advantage"))


def contradictions(groups: Groups) -> Finding | None:
    """Responses whose advantage has the wrong sign, whatever the baseline.

    The sign is that of A against reward − group mean. Alone it says little: a baseline of the whole batch shifts every
    advantage of a group. So another response of the group must have less reward and no less advantage, or the reverse.
    """
    varied = _Varied.of(groups)
    if not len(varied.rows):
        return None
    opposite = (varied.advantage * np.sign(varied.reward) < -_CLEAR) & (np.abs(varied.reward) > _EQUAL)
    wrong = opposite & _misplaced(varied)
    if not wrong.any():
        return None
    count = int(np.count_nonzero(wrong))
    level: Level = "warning" if count > _OFTEN * len(wrong) else "note"
    message = (
        f"The advantage has the wrong sign in {count:,} of {many(len(wrong), 'response')}{groups.partly}: opposite to "
        "reward − group mean, while others of the group have less reward and no less advantage, or more and no more. "
        "Shifted, negated, joined from other responses, or computed from another reward than the one that is logged?"
    )
    return Finding("advantage_sign", level, message, count, groups.examples(varied.rows[wrong], "advantage"))


def _misplaced(varied: _Varied) -> Bools:
    """[n] whether a response of the group has less reward and no less advantage, or more and no more."""
    order = np.lexsort((varied.reward, np.repeat(np.arange(len(varied.sizes)), varied.sizes)))
    advantage, reward = varied.advantage[order], varied.reward[order]
    group = np.repeat(np.arange(len(varied.sizes)), varied.sizes)  # sorting leaves groups where they are
    new = np.append(True, (np.diff(group) > 0) | (np.diff(reward) > _EQUAL))
    starts = np.flatnonzero(new)  # of blocks of one reward
    shift = _APART * group[starts]
    below = np.maximum.accumulate(np.maximum.reduceat(advantage, starts) + shift)
    above = np.minimum.accumulate((np.minimum.reduceat(advantage, starts) + shift)[::-1])[::-1]
    most_below = np.append(-np.inf, below[:-1]) - shift  # below −1 where the group has none of less reward
    least_above = np.append(above[1:], np.inf) - shift
    block = np.cumsum(new) - 1
    misplaced = np.empty(len(order), bool)
    misplaced[order] = (most_below[block] > advantage - _CLEAR) | (least_above[block] < advantage + _CLEAR)
    return misplaced
