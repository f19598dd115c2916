"""Values of other libraries as plain ones."""

from __future__ import annotations

import array
import enum
import marshal
import math
from typing import Any

import numpy as np
import pytest
import torch

from service.client.values import finite, pack, plain, unpack


class Finish(enum.StrEnum):
    STOP = "stop"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (torch.tensor([0.5, -0.25], dtype=torch.bfloat16), [0.5, -0.25]),
        (torch.tensor([[1, 2]]), [[1, 2]]),
        (torch.tensor(2.5, requires_grad=True), 2.5),
        (np.array([True, False]), [True, False]),
        (np.float32(0.5), 0.5),
        (torch.tensor([0.1, -math.inf]), [0.10000000149011612, -math.inf]),
        (torch.tensor([[1.5], [2.5]], dtype=torch.float64).T, [[1.5, 2.5]]),
        (torch.tensor([0.5], requires_grad=True), [0.5]),
        (torch.tensor([], dtype=torch.int64), []),
        (np.arange(6, dtype=np.uint8).reshape(2, 3)[:, ::2], [[0, 2], [3, 5]]),
        (np.array([0.5], dtype=np.float16), [0.5]),
        (np.array([1], dtype=">i8"), [1]),
        (array.array("d", [0.25]), [0.25]),
        ([np.float64(0.5), np.int64(3), None], [0.5, 3, None]),
        (np.array([np.float64(0.5), None], dtype=object), [0.5, None]),
        ([torch.tensor(1), torch.tensor(2)], [1, 2]),
        ([np.array([1.5]), [np.array([2.5])]], [[1.5], [[2.5]]]),
        ({"a": {1: (np.int32(4),)}}, {"a": {"1": [4]}}),
        (Finish.STOP, "stop"),
    ],
)
def test_plain(value: Any, expected: Any) -> None:
    found = plain(value)
    assert found == expected
    assert repr(found) == repr(expected)  # of the same types: 1 is neither 1.0 nor True
    stored = marshal.loads(marshal.dumps(pack({"field": value})))
    assert repr(unpack(stored)) == repr({"field": expected})


@pytest.mark.parametrize("value", [b"bytes", {1, 2}, object(), 1j, [[b""]], np.array([b"x"]), np.array([1j])])
def test_what_is_no_json(value: Any) -> None:
    with pytest.raises(TypeError, match="is no JSON"):
        plain(value)
    with pytest.raises(TypeError, match="is no JSON"):
        pack({"field": value})


def test_finite() -> None:
    assert finite({"a": [1.0, math.nan, (math.inf, -math.inf)], "b": 2}) == {"a": [1.0, None, [None, None]], "b": 2}
