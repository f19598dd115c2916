"""Values of other libraries as plain ones."""

from __future__ import annotations

import enum
import math
from typing import Any

import numpy as np
import pytest
import torch

from service.client.values import finite, plain


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


@pytest.mark.parametrize("value", [b"bytes", {1, 2}, object(), 1j, [[b""]], np.array([b"x"]), np.array([1j])])
def test_what_is_no_json(value: Any) -> None:
    with pytest.raises(TypeError, match="is no JSON"):
        plain(value)


def test_finite() -> None:
    assert finite({"a": [1.0, math.nan, (math.inf, -math.inf)], "b": 2}) == {"a": [1.0, None, [None, None]], "b": 2}
