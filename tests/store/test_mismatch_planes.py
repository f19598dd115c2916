"""The TV plane of the mismatch (claim C1) is of top-K where at least half of the tokens have a list, else binary."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.store.handmade import Columns, analysed, rows

TOKENS: Columns = {
    "sample_id": ["s"] * 3,
    "advantage": [1.0] * 3,
    "logp_rollout": [math.log(0.5)] * 3,
    "logp_old": [math.log(0.54), math.log(0.54), math.log(0.5)],
    "log_ratio__rollout_old": [math.log(1.08), math.log(1.08), 0.0],
    "tv_binary__rollout_old": [0.04, 0.04, 0.0],
}


def place(tv: float) -> int:
    return math.floor((math.log10(tv) + 6) / 6.2 * 64)


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        ([0.2, 0.3, None], {place(0.2): 1, place(0.3): 1}),  # never two quantities in one plane
        ([0.2, None, None], {place(0.04): 2, 0: 1}),
    ],
)
def test_top_k_where_there_are_lists(tmp_path: Path, lists: list[float | None], expected: dict[int, int]) -> None:
    with analysed(tmp_path, {0: {**TOKENS, "tv_topk__rollout_old": lists}}) as store:
        density = {row["y_bin"]: row["n"] for row in rows(store, "mismatch_tv_plane")}
    assert density == expected
