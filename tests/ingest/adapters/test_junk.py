"""Whatever stands in a field, an adapter either takes it or names it: no other error, and no word of native fields."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from service.errors import BadRecord
from service.ingest.adapters import ADAPTERS, LeftOut
from service.ingest.examine import examine
from tests.ingest.adapters.test_atropos import group
from tests.ingest.adapters.test_nemo_rl import logged
from tests.ingest.adapters.test_open_instruct import saved
from tests.ingest.adapters.test_prime_rl import exported
from tests.ingest.adapters.test_verifiers import episode
from tests.ingest.adapters.test_verifiers_results import result

JUNK = [None, True, -1, 0, 3, 1.5, 10**400, math.nan, math.inf, -math.inf, "", "x", "x" * 300, "\0", "\ud800"]
JUNK += [[], [[]], {}, {"x": {"x": 1}}, [None], [1], ["x"], [{}], [[1, 2]], {"x": [math.inf, "\ud800"]}]
RECORDS = {
    "atropos": group,
    "nemo-rl": lambda: logged()[0],
    "open-instruct": saved,
    "prime-rl": exported,
    "verifiers": episode,
    "verifiers-results": result,
}


def junked(value: Any) -> Iterator[Callable[[Any], None]]:
    """Changes to a value like this one: something else in one place. The first and last of a list stand for all."""
    keys = list(value) if isinstance(value, dict) else sorted({0, len(value) - 1}) if value else []
    for key in keys:
        for junk in JUNK:
            yield lambda whole, key=key, junk=junk: whole.__setitem__(key, junk)
        if isinstance(value[key], (dict, list)):
            for change in junked(value[key]):
                yield lambda whole, key=key, change=change: change(whole[key])


@pytest.mark.parametrize("name", RECORDS)
def test_junk(name: str) -> None:
    (adapter,) = [adapter for adapter in ADAPTERS if adapter.name == name]
    assert adapter.convert is not None
    pristine = RECORDS[name]()  # type: ignore[operator]
    outcomes = set()
    for change in junked(pristine):
        raw = copy.deepcopy(pristine)
        change(raw)
        refusal, records = None, []
        try:
            records = [record for record in adapter.convert(7, raw) if not isinstance(record, LeftOut)]
        except BadRecord as error:
            refusal = error
        if refusal is not None:
            outcomes.add("refused")
            assert refusal.errors
            assert all(error.line == 7 and error.field for error in refusal.errors)
            continue
        outcomes.add("taken")
        for record in records:
            errors = [error for error in examine(7, record, None).errors if error.field != "step"]
            assert errors == [], (raw, errors)
    assert outcomes == {"refused", "taken"}
