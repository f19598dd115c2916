"""Where two masks agree and disagree: four cells for each sign of the advantage."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dppo_core.masks import Decision

__all__ = ["CELLS", "Cell", "four_cells"]

CELLS = ("both_keep", "only_first_drops", "only_second_drops", "both_drop")


@dataclass(frozen=True)
class Cell:
    """One cell: number of tokens, mass moved Σ|π − anchor| and gradient weight Σ min(r, C)|A|."""

    tokens: int
    mass_moved: float
    gradient_weight: float


def four_cells(
    first: Decision, second: Decision, advantage: Tensor, abs_dp: Tensor, weight: Tensor
) -> dict[int, dict[str, Cell]]:
    """The four cells of two masks for A < 0, A = 0 and A > 0 (keys −1, 0, 1), each keyed by `CELLS`.

    All inputs [N]. Tokens where either decision is not known are in no cell. Tokens with A = 0 have no gradient and
    are kept by every method: they have their own row and belong in no drop rate.
    """
    known = first.known & second.known
    cells: dict[int, dict[str, Cell]] = {}
    for sign in (-1, 0, 1):
        of_sign = known & (torch.sign(advantage) == sign)
        members = (
            first.keep & second.keep,
            ~first.keep & second.keep,
            first.keep & ~second.keep,
            ~first.keep & ~second.keep,
        )
        cells[sign] = {
            name: Cell(
                tokens=int((of_sign & member).sum()),
                mass_moved=float(abs_dp.double()[of_sign & member].sum()),
                gradient_weight=float(weight.double()[of_sign & member].sum()),
            )
            for name, member in zip(CELLS, members, strict=True)
        }
    return cells
